//! Calls on the socket where Docker looks for its driver.

use weft_docker_plugin::{Incoming, receive};

/// The method's path, a line feed, the body.
pub(crate) fn plugin(bytes: &[u8]) {
    let (method, body) = match bytes.iter().position(|b| *b == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let method = String::from_utf8_lossy(method);
    let answer = match receive(&method, body) {
        Ok(Incoming::Answered(response)) => response.to_body(),
        Ok(Incoming::Asked(request)) => {
            assert_eq!(receive(&method, body), Ok(Incoming::Asked(request)));
            return;
        }
        Err(refusal) => {
            let sentence = refusal.to_string();
            assert!(
                !sentence.is_empty() && !sentence.contains('\n') && sentence.len() < 2000,
                "{sentence:?}"
            );
            refusal.to_body()
        }
    };
    assert!(serde_json::from_slice::<serde_json::Value>(&answer).is_ok(), "every answer is JSON");
}

/// What Engine 20.10.24 said.
pub(crate) fn calls() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../docker/plugin/golden/engine-20.10.24.jsonl");
    let call = |line: &str| {
        let call: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| call[key].as_str().expect("text").to_owned();
        format!("{}\n{}", text("method"), text("body")).into_bytes()
    };
    golden.lines().map(call).collect()
}
