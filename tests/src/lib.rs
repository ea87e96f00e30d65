//! The house's own rules, the attackers, and the lab tests. This crate has no library of its own to speak of:
//! `tests/house.rs` checks arrows, purity and doors; `tests/lab_*.rs` run the product on real Docker Engines; `src/bin/` are the attackers.
