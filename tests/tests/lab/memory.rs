//! Looking for a text in the memory of a process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

const WORD: usize = 8;
const CHUNK: u64 = 1 << 20;

/// Places in what a process can write to, where eight bytes are part of `text`, repeated. Every run of fifteen bytes holds one.
pub fn places(pid: i32, text: [u8; WORD]) -> io::Result<(usize, u64)> {
    let wanted = rotations(text);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut found, mut read, mut buffer) = (0, 0, vec![0; CHUNK as usize]);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some((from, to)) = range.split_once('-').filter(|_| rights.starts_with("rw")) else { continue };
        let (mut at, end) = (number(from)?, number(to)?);
        while at < end {
            let len = CHUNK.min(end - at);
            // What was unmapped meanwhile cannot be read, and is nobody's memory any more.
            if memory.read_exact_at(&mut buffer[..len as usize], at).is_ok() {
                found += words(&buffer[..len as usize], &wanted);
                read += len;
            }
            at += len;
        }
    }
    Ok((found, read))
}

/// The same in a file.
pub fn places_in(bytes: &[u8], text: [u8; WORD]) -> usize {
    let wanted = rotations(text);
    words(bytes, &wanted)
}

fn rotations(mut text: [u8; WORD]) -> [u64; WORD] {
    std::array::from_fn(|_| {
        text.rotate_left(1);
        u64::from_ne_bytes(text)
    })
}

fn words(bytes: &[u8], wanted: &[u64; WORD]) -> usize {
    let (words, _) = bytes.as_chunks::<WORD>();
    words.iter().filter(|word| wanted.contains(&u64::from_ne_bytes(**word))).count()
}

fn number(hex: &str) -> io::Result<u64> {
    u64::from_str_radix(hex, 16).map_err(io::Error::other)
}
