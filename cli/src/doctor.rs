//! `weft doctor`: what usually breaks on this host, a line each.

use std::process::ExitCode;

use weft_agent::doctor::{Finding, Health, examine};
use weft_agent::state::StateDir;
use weft_client::Admin;

use crate::Done;
use crate::args::Doctor;
use crate::show::print;

pub async fn doctor(state: &StateDir, admin: &Admin, args: Doctor) -> Done {
    let findings = examine(state, admin, args.fix).await;
    print(args.format.json, findings.as_slice(), lines)?;
    let sick = findings.iter().any(|finding| finding.health == Health::Problem);
    Ok(if sick { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let health = match finding.health {
            Health::Ok => "ok",
            Health::Mended => "mended",
            Health::Warning => "warning",
            Health::Problem => "problem",
        };
        // One line, whatever Docker or the kernel put into the sentence.
        let says = finding.says.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{health:<10}{:<14}{says}\n", finding.check)
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_finding() {
        let finding = |check, health, says: &str| Finding { check, health, says: says.into() };
        let findings = vec![
            finding("tun", Health::Ok, "/dev/net/tun can be opened"),
            finding("live-restore", Health::Warning, "containers end\nwhen Docker restarts"),
        ];
        assert_eq!(
            lines(&findings),
            "ok        tun           /dev/net/tun can be opened\n\
             warning   live-restore  containers end when Docker restarts\n"
        );
    }
}
