// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lines over vsock and their echo: the guest's end, and that of its host, where Cloud Hypervisor's vsock device is a
//! unix socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

/// For an answer, so that a peer that is stuck does not hang its caller.
const LIMIT: Duration = Duration::from_secs(30);

/// Echoes what comes from the host on a port.
pub(crate) fn echo_in_guest(port: u32) -> io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    println!("vsock: listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || echo(&stream));
    }
    Ok(())
}

/// Echoes what comes from the guest: the VMM connects to `socket` when it calls the host's port of that name.
pub(crate) fn echo_on_host(socket: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    println!("vsock: listening on {}", socket.display());
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || echo(&stream));
    }
    Ok(())
}

/// Says the lines of standard input to the host's port, and prints the answers.
pub(crate) fn talk_to_host(port: u32) -> io::Result<()> {
    let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port)?;
    stream.set_read_timeout(Some(LIMIT))?;
    talk(&stream, io::stdin().lock(), io::stdout())
}

/// Says the lines of standard input to the guest's port, and prints the answers.
pub(crate) fn talk_to_guest(socket: &Path, port: u32) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    (&stream).write_all(format!("CONNECT {port}\n").as_bytes())?;
    let answer = read_line(&stream)?;
    if !answer.starts_with("OK ") {
        return Err(io::Error::other(format!("CONNECT: {answer:?}")));
    }
    talk(&stream, io::stdin().lock(), io::stdout())
}

fn echo<S>(stream: &S) -> io::Result<u64>
where
    for<'a> &'a S: Read + Write,
{
    io::copy(&mut &*stream, &mut &*stream)
}

fn talk<S>(stream: &S, questions: impl BufRead, mut answers: impl Write) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    for line in questions.lines() {
        let mut said = line?;
        said.push('\n');
        (&mut &*stream).write_all(said.as_bytes())?;
        answers.write_all(read_line(stream)?.as_bytes())?;
        answers.flush()?;
    }
    Ok(())
}

/// Not beyond its end: the next line is for somebody else.
fn read_line<S>(stream: &S) -> io::Result<String>
where
    for<'a> &'a S: Read,
{
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_comes_back_before_the_next_one_is_said() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || echo(&theirs));
        let mut answers = Vec::new();
        talk(&ours, &b"one\ntwo\n"[..], &mut answers).unwrap();
        assert_eq!(answers, b"one\ntwo\n");
    }

    #[test]
    fn a_peer_that_goes_away_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        talk(&ours, &b"one\n"[..], io::sink()).unwrap_err();
    }
}
