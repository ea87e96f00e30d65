//! The product on real hosts with real Docker Engines: what a person types, and what must come of it.
//! Each test has a lab of its own, so any of them can run alone, twice, and after another has failed.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod addresses;
mod attach;
mod attack_frames;
mod attack_gossip;
mod attack_member;
mod attack_path;
mod attack_records;
mod attacker;
mod bad_input;
mod binary;
mod compose;
mod cross_host;
mod cuts;
mod docker_behaviour;
mod docker_networks;
mod docker_trouble;
mod doctor;
mod firewall;
mod fixture;
mod flow;
mod forged;
mod fresh_keys;
mod ipv6_underlay;
mod leases;
mod look;
mod loops;
mod memory;
mod multicast;
mod one_way;
mod partition;
mod plugin_abuse;
mod plugin_kill;
mod questions;
mod random_commands;
mod reboot;
mod refusals;
mod resilience;
mod roaming;
mod row;
mod second_signer;
mod separation;
mod service;
mod tcp;
mod truth;
