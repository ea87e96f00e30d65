//! Images without a registry: a tar of a few files, imported into the engines.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    command,
    error::{Context, Error},
    host::Host,
    lab::Lab,
};

/// The image that [`Lab::image`] brings: static busybox with all its applets, `sh` by default.
pub const BUSYBOX: &str = "busybox:latest";

/// One thing in an image. Paths in the image are given without a leading `/` and have at most 99 characters.
#[derive(Clone, Debug)]
pub enum ImageFile {
    /// A copy of a file of this machine, executable by all; a program must be static.
    Copy {
        /// Where in the image.
        to: String,
        /// Which file of this machine.
        from: PathBuf,
    },
    /// A file with this text.
    Text {
        /// Where in the image.
        to: String,
        /// What is in it.
        text: String,
    },
    /// A symbolic link.
    Link {
        /// Where in the image.
        at: String,
        /// What it points to.
        to: String,
    },
    /// A directory that all may write.
    Dir(String),
}

impl Lab {
    /// Gives every running host the image [`BUSYBOX`].
    pub fn image(&self) -> Result<(), Error> {
        let tar = tar(&busybox()?)?;
        self.on_all_hosts(|host| host.import_tar(BUSYBOX, &tar))
    }
}

impl Host {
    /// Makes an image of these files. Its default command is `sh`, which must be among them if none is given.
    pub fn import(&self, name: &str, files: &[ImageFile]) -> Result<(), Error> {
        self.import_tar(name, &tar(files)?)
    }

    fn import_tar(&self, name: &str, tar: &[u8]) -> Result<(), Error> {
        self.feed(["docker", "import", "-c", r#"CMD ["sh"]"#, "-", name], tar).map(drop)
    }
}

/// The files of the image [`BUSYBOX`], to be extended for images of one's own.
pub fn busybox() -> Result<Vec<ImageFile>, Error> {
    let list = command::output(Command::new("busybox").arg("--list"));
    if !list.ok() {
        return Err(Error::Command {
            whom: "this machine".into(),
            command: "busybox --list".into(),
            status: list.status,
            said: list.stderr,
        });
    }
    let text = |to: &str, text: &str| ImageFile::Text { to: to.into(), text: text.into() };
    let mut files = vec![
        ImageFile::Copy { to: "bin/busybox".into(), from: busybox_path() },
        ImageFile::Dir("tmp".into()),
        ImageFile::Dir("etc".into()),
        text("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
        text("etc/group", "root:x:0:\n"),
    ];
    let applets = list.stdout.lines().filter(|a| *a != "busybox");
    files.extend(applets.map(|a| ImageFile::Link { at: format!("bin/{a}"), to: "busybox".into() }));
    Ok(files)
}

fn busybox_path() -> PathBuf {
    ["/usr/bin/busybox", "/bin/busybox"].iter().map(PathBuf::from).find(|p| p.exists()).unwrap_or_default()
}

/// A POSIX ustar archive.
fn tar(files: &[ImageFile]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for file in files {
        match file {
            ImageFile::Copy { to, from } => {
                let bytes = fs::read(from).context(|| format!("cannot read {}", from.display()))?;
                entry(&mut out, to, b'0', 0o755, "", &bytes);
            }
            ImageFile::Text { to, text } => entry(&mut out, to, b'0', 0o644, "", text.as_bytes()),
            ImageFile::Link { at, to } => entry(&mut out, at, b'2', 0o777, to, b""),
            ImageFile::Dir(at) => entry(&mut out, at, b'5', 0o1777, "", b""),
        }
    }
    out.resize(out.len() + 1024, 0);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, name: &str, kind: u8, mode: u32, link: &str, bytes: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| {
        for (to, from) in header[at..].iter_mut().zip(text.bytes()) {
            *to = from;
        }
    };
    put(0, &name[..name.len().min(99)]);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", bytes.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(157, &link[..link.len().min(99)]);
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    #[test]
    fn tar_understands_it() {
        let files = [
            ImageFile::Dir("etc".into()),
            ImageFile::Text { to: "etc/motd".into(), text: "x".repeat(700) },
            ImageFile::Link { at: "bin/sh".into(), to: "busybox".into() },
        ];
        let mut list =
            Command::new("tar").arg("-tvf-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        list.stdin.take().unwrap().write_all(&tar(&files).unwrap()).unwrap();
        let out = list.wait_with_output().unwrap();
        assert!(out.status.success());
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(
            text.contains("700") && text.contains("etc/motd") && text.contains("bin/sh -> busybox"),
            "{text}"
        );
    }
}
