//! `weft token`: who may join. The text of a token is printed once, when it is made, and kept nowhere.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use weft_agent::setup::DEFAULT_PORT;
use weft_api::report::Token;
use weft_api::request::NewToken;
use weft_client::Admin;

use crate::show::print;
use crate::table::{Columns, span};
use crate::{Done, args};

pub async fn new(admin: &Admin, args: args::NewToken) -> Done {
    let made = admin.new_token(&NewToken { once: args.once, valid_secs: args.expires }).await?;
    if args.quiet {
        return crate::say(&made.token);
    }
    let hosts = admin.hosts().await?;
    let address = hosts.iter().find(|host| host.this).and_then(|host| host.addresses.first());
    let uses = if args.once { "for one host, " } else { "" };
    let valid = format!("{uses}valid {}", span(made.expires.saturating_sub(now())));
    print!("{}", invitation(address.copied(), &made.token, &valid));
    Ok(ExitCode::SUCCESS)
}

pub async fn list(admin: &Admin, as_json: bool) -> Done {
    let tokens = admin.tokens().await?;
    let now = now();
    print(as_json, &tokens, |tokens| token_table(tokens, now))
}

pub async fn remove(admin: &Admin, ids: &[String]) -> Done {
    for id in ids {
        admin.remove_token(id).await?;
        println!("{id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What to type on the new host.
pub fn invitation(address: Option<SocketAddr>, token: &str, valid: &str) -> String {
    let address = address.map_or_else(|| "ADDRESS".into(), short);
    format!("  Add a host:   weft join {address} --token {token}      ({valid})\n")
}

/// Without the usual port.
fn short(address: SocketAddr) -> String {
    if address.port() == DEFAULT_PORT { address.ip().to_string() } else { address.to_string() }
}

fn token_table(tokens: &Vec<Token>, now: u64) -> String {
    let mut table = Columns::new(["ID", "EXPIRES", "FOR", "USED BY"]);
    for token in tokens {
        let expires = match token.expires.checked_sub(now) {
            Some(left) if left > 0 => format!("in {}", span(left)),
            _ => "expired".into(),
        };
        let uses = if token.once { "one host" } else { "any host" };
        table.row([token.id.to_string(), expires, uses.into(), token.used_by.join(" ")]);
    }
    table.text()
}

fn now() -> u64 {
    // Half a second, so that a day is not printed as 23 h 59 min.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use weft_api::id::TokenId;

    use super::*;

    #[test]
    fn an_invitation_can_be_pasted() {
        let at = |text: &str| invitation(Some(text.parse().unwrap()), "weft1-x", "valid 24 h");
        assert_eq!(
            at("192.0.2.1:6783"),
            "  Add a host:   weft join 192.0.2.1 --token weft1-x      (valid 24 h)\n"
        );
        assert!(at("[2001:db8::1]:7000").contains("join [2001:db8::1]:7000 --token"));
    }

    #[test]
    fn a_list() {
        let token = |once, expires, used_by: &[&str]| Token {
            id: TokenId([0x1f; 16]),
            expires,
            once,
            used_by: used_by.iter().map(|s| (*s).to_owned()).collect(),
        };
        assert_eq!(
            token_table(&vec![token(false, 100 + 86_400, &["h2", "h3"]), token(true, 90, &[])], 100),
            "ID                                 EXPIRES   FOR        USED BY\n\
             1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f   in 1 d    any host   h2 h3\n\
             1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f   expired   one host   -\n"
        );
    }
}
