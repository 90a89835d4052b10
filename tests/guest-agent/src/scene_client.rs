// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The OpenGL client, a process of its own in the image that has OpenGL.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use guest_agent::scene::SceneRequest;
use serde_json::Value;

use crate::Error;

/// Where the init script mounts the image.
const ROOT: &str = "/scene";
const PROGRAM: &str = "/usr/bin/guest-gl";

/// A running client, which lives as long as the agent.
#[derive(Debug)]
pub(crate) struct SceneClient {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl SceneClient {
    /// Starts it. It writes what goes wrong to the console.
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |source| Error::Run {
            program: PROGRAM.to_owned(),
            source,
        };
        let mut child = Command::new("chroot")
            .args([ROOT, PROGRAM])
            // The image is read-only.
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, replies) = pipes.ok_or_else(|| Error::Scene("has no pipes".to_owned()))?;
        Ok(Self {
            child,
            requests,
            replies: BufReader::new(replies),
        })
    }

    /// Passes a request on and waits for the reply.
    pub(crate) fn ask(&mut self, request: SceneRequest) -> Result<Value, Error> {
        let mut line = serde_json::to_string(&request)?;
        line.push('\n');
        let sent = self.requests.write_all(line.as_bytes());
        let mut answer = String::new();
        sent.and_then(|()| self.replies.read_line(&mut answer))
            .map_err(|error| Error::Scene(error.to_string()))?;
        if answer.is_empty() {
            let status = self.child.wait();
            return Err(Error::Scene(format!("has ended: {status:?}")));
        }
        let answer: Result<Value, String> = serde_json::from_str(&answer)?;
        answer.map_err(Error::Scene)
    }
}
