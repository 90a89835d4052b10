// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An OpenGL ES client on a whole screen. It takes requests, a line of JSON each, from its standard
//! input and replies on its standard output.

mod error;
mod gbm;
mod scene;
mod screen;

use std::io::{self, Write};
use std::mem;
use std::process::{self, ExitCode};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use guest_agent::scene::{Animated, SceneRequest};
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::scene::Scene;
use crate::screen::Screen;

struct Client {
    screen: Screen,
    scene: Scene,
    /// Frames drawn in the background since it began; `None` while nothing is.
    animated: Option<u32>,
}

impl Client {
    fn start() -> Result<Self> {
        let (screen, gl) = Screen::open()?;
        let scene = Scene::new(gl, screen.size())?;
        Ok(Self {
            screen,
            scene,
            animated: None,
        })
    }

    fn answer(&mut self, request: SceneRequest) -> Result<Value> {
        let frames = self.animated.take();
        match request {
            SceneRequest::Describe => json(&self.scene.client(process::id())),
            SceneRequest::Frame { number } => {
                self.scene.draw(number)?;
                let frame = self.scene.read()?;
                self.screen.show()?;
                json(&frame)
            }
            SceneRequest::ReadKept => json(&self.scene.read_kept()?),
            SceneRequest::Results => json(&self.scene.results()?),
            SceneRequest::Animate => {
                self.animated = Some(0);
                Ok(Value::Null)
            }
            SceneRequest::Stop => json(&Animated {
                frames: frames.unwrap_or(0),
            }),
        }
    }

    /// Draws as a display server does that reads nothing back.
    fn animate(&mut self, frame: u32) -> Result<()> {
        self.scene.draw(frame)?;
        self.screen.show()?;
        self.animated = Some(frame.wrapping_add(1));
        Ok(())
    }

    fn serve(&mut self, requests: &Receiver<SceneRequest>) -> Result<()> {
        loop {
            let request = match self.animated {
                None => requests.recv().map_err(|_| TryRecvError::Disconnected),
                Some(_) => requests.try_recv(),
            };
            match (request, self.animated) {
                (Ok(request), _) => reply(self.answer(request))?,
                (Err(TryRecvError::Empty), Some(frame)) => self.animate(frame)?,
                (Err(_), _) => return Ok(()),
            }
        }
    }
}

fn json<T: Serialize>(value: &T) -> Result<Value> {
    Ok(serde_json::to_value(value)?)
}

fn reply(answer: Result<Value>) -> Result<()> {
    let line = serde_json::to_string(&answer.map_err(|error| error.to_string()))?;
    // Who asked is gone if this fails, and the input ends next.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(())
}

/// Reads on a thread of its own: the other one draws.
fn requests() -> Receiver<SceneRequest> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(|line| line.ok()) {
            match serde_json::from_str(&line) {
                Ok(request) if sender.send(request).is_ok() => {}
                Ok(_) => return,
                Err(error) => eprintln!("guest-gl: {error}: {line}"),
            }
        }
    });
    receiver
}

fn main() -> ExitCode {
    let served = Client::start().and_then(|mut client| {
        let served = client.serve(&requests());
        // EGL's library must not be unloaded under the threads that it started.
        mem::forget(client);
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-gl: {error}");
            ExitCode::FAILURE
        }
    }
}
