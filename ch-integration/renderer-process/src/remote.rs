// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_util::log_source::RENDERER;
use virtio_gpu_s3::renderer::{Answer, Backing, Begun, Call, CapsetInfo, Completion, Data, Ticket};
use virtio_gpu_s3::{Renderer, RendererError};

use super::live::{CallError, Live};
use super::process::{Breaker, Process, StartProcessError};
use super::{RendererProgram, Wake};

/// In which time restarts are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// A renderer in another process.
#[derive(Debug)]
pub struct RemoteRenderer {
    program: RendererProgram,
    wake: Arc<Wake>,
    breaker: Breaker,
    capsets: Vec<CapsetInfo>,
    state: State,
    /// When it was started again, the last minute.
    restarts: VecDeque<Instant>,
    /// Whether it tells of what [`Renderer::poll`] has to give.
    wakes: bool,
}

#[derive(Debug)]
enum State {
    /// It is started when it is needed.
    Idle,
    Running(Box<Live>),
    Ended(String),
}

impl RemoteRenderer {
    /// Starts the program. `wake` is called whenever [`Renderer::poll`] or [`Renderer::failure`] has something new, on
    /// a thread that must not wait for anything.
    ///
    /// # Errors
    /// A [`StartProcessError`] says what is missing.
    pub fn new(
        program: RendererProgram,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StartProcessError> {
        let wake = Arc::new(Wake(Box::new(wake)));
        let breaker = Breaker::default();
        let (process, capsets) = Process::start(&program, &wake, &breaker)?;
        Ok(Self {
            program,
            wake,
            breaker,
            capsets,
            state: State::Running(Box::new(Live::new(process))),
            restarts: VecDeque::new(),
            wakes: true,
        })
    }

    /// What ends its process, this one or a later one.
    pub fn breaker(&self) -> Breaker {
        self.breaker.clone()
    }

    /// The process's number, while there is one.
    pub fn process_id(&self) -> Option<u32> {
        match &self.state {
            State::Running(live) => Some(live.process_id()),
            State::Idle | State::Ended(_) => None,
        }
    }

    fn start_again(&mut self) -> Result<Box<Live>, StartProcessError> {
        let now = Instant::now();
        let recent = |then: &Instant| now.duration_since(*then) < WINDOW;
        self.restarts.retain(recent);
        let count = self.restarts.len();
        if count >= self.program.restarts_a_minute {
            let window = WINDOW;
            return Err(StartProcessError::TooOften { count, window });
        }
        self.restarts.push_back(now);
        let (process, capsets) = Process::start(&self.program, &self.wake, &self.breaker)?;
        if capsets != self.capsets {
            return Err(StartProcessError::OtherCapsets);
        }
        RENDERER.info(format_args!("renderer: started anew"));
        process.want_wakes(self.wakes);
        Ok(Box::new(Live::new(process)))
    }

    /// The process, started if there is none and may be one.
    fn live(&mut self) -> Result<&mut Live, RendererError> {
        if matches!(self.state, State::Idle) {
            self.state = match self.start_again() {
                Ok(live) => State::Running(live),
                Err(error) => {
                    (self.wake.0)();
                    State::Ended(error.to_string())
                }
            };
        }
        match &mut self.state {
            State::Running(live) => Ok(live),
            State::Idle | State::Ended(_) => Err(RendererError::Gone),
        }
    }

    /// Does something that ends the process where it goes wrong between the two.
    fn with<T>(
        &mut self,
        action: impl FnOnce(&mut Live) -> Result<T, CallError>,
    ) -> Result<T, RendererError> {
        let live = self.live()?;
        match action(live) {
            Ok(value) => Ok(value),
            Err(CallError::Renderer(error)) => Err(error),
            Err(CallError::Channel(error)) => {
                let why = live.end(&error);
                self.state = State::Ended(why);
                Err(RendererError::Gone)
            }
        }
    }

    fn has_ended(&self) -> bool {
        match &self.state {
            State::Running(live) => live.ended().is_some(),
            State::Idle | State::Ended(_) => true,
        }
    }

    /// Unmaps what no resource needs any more.
    fn unmap_unused(&mut self) -> Result<(), RendererError> {
        match &self.state {
            State::Running(_) => self.with(Live::unmap_unused),
            State::Idle | State::Ended(_) => Ok(()),
        }
    }

    fn forget_backing(&mut self, resource_id: u32) {
        if let State::Running(live) = &mut self.state {
            live.forget_backing(resource_id);
        }
    }
}

impl Renderer for RemoteRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        self.capsets.clone()
    }

    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        // The end of something is reached where the renderer is gone.
        let is_reached = call.operation.is_an_end() && self.has_ended();
        let backing = call.operation.backing();
        let answer = if is_reached {
            Ok(Answer::Done)
        } else {
            self.with(|live| live.call(call))
        };
        let Some((resource_id, change)) = backing.filter(|(_, it)| *it != Backing::Used) else {
            return answer;
        };
        // Also those that were mapped for a call that failed.
        if change == Backing::Ends || answer.is_err() {
            self.forget_backing(resource_id);
        }
        let cleared = self.unmap_unused();
        answer.and_then(|answer| cleared.map(|()| answer))
    }

    fn begin(&mut self, call: Call<'_>, ticket: Ticket) -> Begun {
        let uses = matches!(call.operation.backing(), Some((_, Backing::Used)));
        if !uses && !matches!(call.data, Data::Stream(_)) {
            // It is answered with more, or changes what is mapped.
            return Begun::Answered(self.call(call));
        }
        match self.with(|live| live.begin(call, ticket)) {
            Ok(()) => Begun::InFlight,
            Err(error) => Begun::Answered(Err(error)),
        }
    }

    fn poll(&mut self) -> Vec<Completion> {
        let State::Running(live) = &mut self.state else {
            return Vec::new();
        };
        if self.wakes {
            // Told once, and again from now on.
            live.want_wakes(true);
        }
        match live.poll() {
            Ok(completions) => completions,
            Err(error) => {
                let why = live.end(&error);
                self.state = State::Ended(why);
                Vec::new()
            }
        }
    }

    fn want_wakes(&mut self, wanted: bool) {
        self.wakes = wanted;
        if let State::Running(live) = &self.state {
            live.want_wakes(wanted);
        }
    }

    /// The process has nothing but virglrenderer, whose fences wait for work only.
    fn release_waits(&mut self) {}

    fn failure(&self) -> Option<String> {
        match &self.state {
            State::Idle => None,
            State::Running(live) => live.ended(),
            State::Ended(why) => Some(why.clone()),
        }
    }

    fn restart(&mut self) -> Result<(), RendererError> {
        if let Some(why) = self.failure() {
            RENDERER.debug(format_args!("{why}; it is started when the guest needs it"));
            self.state = State::Idle;
        }
        Ok(())
    }
}
