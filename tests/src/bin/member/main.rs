//! A member turned bad: it has the key of a host whose `weft up` has ended, a true session with the victim, and seals whatever it
//! is told to. Orders come on standard input, one a line; each is answered by a line. It ends with its input.

mod session;
mod tls;
mod wire;

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use session::{Attack, Session};

const USAGE: &str = "usage: member STATE_DIR VICTIM:PORT, then on standard input
  fresh               a new session
  seal COUNT HEX      so many envelopes with these chunks
  relay COUNT HEX     so many relayed envelopes: the first 33 bytes are the head, the rest comes behind it
  counter N HEX       one under this counter
  control HEX         these bytes on the control stream
  stream HEX          a stream of both directions that begins with these bytes
  first HEX           a connection whose control stream begins with these bytes; says how it ends";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("member: {e}");
            ExitCode::FAILURE
        }
    }
}

fn obey() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [state, victim] = args.as_slice() else { return Err(USAGE.into()) };
    let attack = Attack::new(Path::new(state), victim.parse()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut session = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match runtime.block_on(order(&attack, &mut session, &words)) {
            Ok(said) => println!("ok {said}"),
            Err(e) => println!("failed: {e}"),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn order(attack: &Attack, session: &mut Option<Session>, words: &[&str]) -> Result<String, Failure> {
    match words {
        ["fresh"] => {
            *session = None;
            *session = Some(Session::whole(attack).await?);
            return Ok("session".into());
        }
        ["first", hex] => return Ok(Session::begin(attack, &bytes(hex)?).await?.end().await),
        _ => {}
    }
    let session = session.as_mut().ok_or("no session")?;
    match words {
        ["seal", count, hex] => {
            let (count, chunks): (usize, _) = (count.parse()?, bytes(hex)?);
            for n in 0..count {
                session.wire.seal(&chunks);
                if n % 32 == 31 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Ok(format!("{count} envelopes"))
        }
        ["relay", count, hex] => {
            let (count, bytes): (usize, _) = (count.parse()?, bytes(hex)?);
            let (head, behind) = bytes.split_first_chunk().ok_or("no whole head")?;
            (0..count).for_each(|_| session.wire.relay(head, behind));
            Ok(format!("{count} relayed envelopes"))
        }
        ["counter", counter, hex] => {
            session.wire.seal_as(counter.parse()?, &bytes(hex)?);
            Ok("1 envelope".into())
        }
        ["control", hex] => {
            let bytes = bytes(hex)?;
            session.control.write_all(&bytes).await?;
            Ok(format!("{} bytes", bytes.len()))
        }
        ["stream", hex] => {
            let (mut send, mut receive) = session.connection.open_bi().await?;
            send.write_all(&bytes(hex)?).await?;
            let answer = tokio::time::timeout(Duration::from_secs(1), receive.read_to_end(65_536)).await;
            Ok(format!("{answer:?}").chars().take(80).collect())
        }
        _ => Err(USAGE.into()),
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, Failure> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
