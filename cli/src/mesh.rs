//! `weft mesh`: the keys of the sessions, and the key that signs for the mesh.

use std::process::ExitCode;

use weft_api::report::Rekeyed;
use weft_client::Admin;

use crate::Done;

pub async fn rekey(admin: &Admin, all: bool) -> Done {
    let hosts = admin.rekey(all).await?;
    for host in &hosts {
        println!("{}", line(host));
    }
    Ok(if hosts.iter().all(|h| h.why.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(host: &Rekeyed) -> String {
    match (host.sessions, &host.why) {
        (_, Some(why)) => format!("{}: not asked: {why}", host.host),
        (Some(1), None) => format!("{}: 1 session", host.host),
        (sessions, None) => format!("{}: {} sessions", host.host, sessions.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_host() {
        let host =
            |sessions, why: Option<&str>| Rekeyed { host: "h1".into(), sessions, why: why.map(Into::into) };
        assert_eq!(line(&host(Some(1), None)), "h1: 1 session");
        assert_eq!(line(&host(Some(0), None)), "h1: 0 sessions");
        assert_eq!(line(&host(None, Some("it is away"))), "h1: not asked: it is away");
    }
}
