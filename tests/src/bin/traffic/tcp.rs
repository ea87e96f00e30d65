//! Connections: a long one with a checksum, many short ones, one that beats and measures its longest gap.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};

use crate::Outcome;

const CHUNK: usize = 256 * 1024;
/// Pauses of a flow that are longer are told.
const PAUSE: Duration = Duration::from_millis(200);

pub fn sink(at: SocketAddr) -> Outcome {
    take(at, |_| {})
}

pub fn drain(at: SocketAddr) -> Outcome {
    let pause = |took: Duration| println!("paused {} ms", took.as_millis());
    take(at, |took| {
        if took > PAUSE {
            pause(took)
        }
    })
}

/// Takes one connection; is told how long each read took.
fn take(at: SocketAddr, read: impl Fn(Duration)) -> Outcome {
    let (mut stream, _) = TcpListener::bind(at)?.accept()?;
    let (mut hash, mut total, mut buffer) = (Context::new(&SHA256), 0, vec![0; CHUNK]);
    loop {
        let begun = Instant::now();
        let len = stream.read(&mut buffer)?;
        read(begun.elapsed());
        if len == 0 {
            return report(total, hash);
        }
        hash.update(&buffer[..len]);
        total += len as u64;
    }
}

pub fn gauge(at: SocketAddr) -> Outcome {
    let (mut stream, _) = TcpListener::bind(at)?.accept()?;
    let (mut total, mut buffer) = (0, vec![0; CHUNK]);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let len = stream.read(&mut buffer)?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if len == 0 {
            println!("{total} bytes, longest pause {} ms", longest.as_millis());
            return Ok(());
        }
        total += len as u64;
    }
}

pub fn source(to: SocketAddr, bytes: u64) -> Outcome {
    let mut stream = connect(to, Duration::from_secs(10))?;
    let (mut hash, mut left, mut random) = (Context::new(&SHA256), bytes, 0x2545_f491_4f6c_dd1d_u64);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        for word in buffer.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&buffer[..len])?;
        hash.update(&buffer[..len]);
        left -= len as u64;
    }
    report(bytes, hash)
}

pub fn flow(to: SocketAddr, file: &str, text: &str) -> Outcome {
    let mut stream = connect(to, Duration::from_secs(10))?;
    let (mut hash, mut total) = (Context::new(&SHA256), 0);
    let chunk = text.repeat(CHUNK / text.len());
    while !Path::new(file).exists() {
        stream.write_all(chunk.as_bytes())?;
        hash.update(chunk.as_bytes());
        total += chunk.len() as u64;
    }
    report(total, hash)
}

pub fn load(to: SocketAddr, seconds: u64) -> Outcome {
    let mut stream = connect(to, Duration::from_secs(10))?;
    let (start, buffer, mut total) = (Instant::now(), vec![7; CHUNK], 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        stream.write_all(&buffer)?;
        total += buffer.len() as u64;
    }
    println!("{total} bytes");
    Ok(())
}

pub fn serve(at: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(at)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
    }
    Ok(())
}

pub fn short(to: SocketAddr, count: usize) -> Outcome {
    const THREADS: usize = 8;
    let start = Instant::now();
    let failed: usize = thread::scope(|scope| {
        let all: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn(move || (n..count).step_by(THREADS).filter(|_| one_byte(to).is_err()).count())
            })
            .collect();
        all.into_iter().map(|t| t.join().unwrap_or(count)).sum()
    });
    println!("{count} connections in {:.1} s, {failed} failed", start.elapsed().as_secs_f64());
    if failed > 0 { Err(format!("{failed} of {count} connections failed").into()) } else { Ok(()) }
}

pub fn beat(to: SocketAddr, seconds: u64) -> Outcome {
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut last, mut longest, mut beats) = (Instant::now(), Duration::ZERO, 0);
    while Instant::now() < end {
        let Ok(mut stream) = connect(to, Duration::from_millis(200)) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut byte = [7];
        while Instant::now() < end && stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok()
        {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            beats += 1;
            thread::sleep(Duration::from_millis(50));
        }
    }
    longest = longest.max(last.elapsed());
    println!("{beats} beats, longest gap {} ms", longest.as_millis());
    Ok(())
}

fn one_byte(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}

fn connect(to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let end = Instant::now() + patience;
    loop {
        match TcpStream::connect_timeout(&to, patience) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > end => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn report(bytes: u64, hash: Context) -> Outcome {
    let digest: String = hash.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    println!("{bytes} {digest}");
    Ok(())
}
