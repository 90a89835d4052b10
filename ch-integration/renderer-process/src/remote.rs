// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info};
use virtio_gpu_s3::renderer::{
    BlobMapping, BlobParams, CapsetInfo, GuestPages, Resource3d, Transfer3d, Work,
};
use virtio_gpu_s3::{Fence, Rect, Renderer, RendererError};

use super::live::{CallError, Live};
use super::process::{Process, StartProcessError};
use super::protocol::Call;
use super::{RendererProgram, Wake};

/// In which time restarts are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// A renderer in another process.
#[derive(Debug)]
pub struct RemoteRenderer {
    program: RendererProgram,
    wake: Arc<Wake>,
    capsets: Vec<CapsetInfo>,
    state: State,
    /// When it was started again, the last minute.
    restarts: VecDeque<Instant>,
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
        let (process, capsets) = Process::start(&program, &wake)?;
        Ok(Self {
            program,
            wake,
            capsets,
            state: State::Running(Box::new(Live::new(process))),
            restarts: VecDeque::new(),
        })
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
        let (process, capsets) = Process::start(&self.program, &self.wake)?;
        if capsets != self.capsets {
            return Err(StartProcessError::OtherCapsets);
        }
        info!("renderer: started anew");
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

    fn call(&mut self, call: &Call) -> Result<(), RendererError> {
        self.with(|live| live.call(call, &[]))
    }

    /// The end of something, which is reached where the renderer is gone.
    fn let_go(&mut self, call: &Call) -> Result<(), RendererError> {
        match &self.state {
            State::Running(live) if live.ended().is_none() => self.call(call),
            _ => Ok(()),
        }
    }

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

    /// Guest memory is mapped in the renderer's process already.
    fn run(&mut self, work: Work<'_>, fence: Option<Fence>) -> Result<(), RendererError> {
        let (call, stream) = match work {
            Work::Submit {
                ctx_id,
                stream,
                in_fences,
            } => {
                let in_fences = in_fences.to_vec();
                (Call::Submit { ctx_id, in_fences }, stream)
            }
            Work::TransferToHost {
                ctx_id,
                resource_id,
                transfer,
                pages: _,
            } => {
                let transfer = *transfer;
                let call = Call::TransferToHost {
                    ctx_id,
                    resource_id,
                    transfer,
                };
                (call, [].as_slice())
            }
            Work::TransferFromHost {
                ctx_id,
                resource_id,
                transfer,
                pages: _,
            } => {
                let transfer = *transfer;
                let call = Call::TransferFromHost {
                    ctx_id,
                    resource_id,
                    transfer,
                };
                (call, [].as_slice())
            }
        };
        self.with(|live| live.call_fenced(&call, stream, fence))
    }

    /// Has a call made that names the pieces of a resource's guest memory.
    fn call_with_pages(
        &mut self,
        call: &Call,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        let done = self.with(|live| live.call_with_pages(call, resource_id, pages));
        // Those that were mapped for a call that failed.
        let cleared = self.unmap_unused();
        done.and(cleared)
    }
}

impl Renderer for RemoteRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        self.capsets.clone()
    }

    fn capset(&mut self, id: u32, version: u32) -> Result<Vec<u8>, RendererError> {
        self.with(|live| live.capset(id, version))
    }

    fn create_context(
        &mut self,
        ctx_id: u32,
        context_init: u32,
        debug_name: &[u8],
    ) -> Result<(), RendererError> {
        let call = Call::CreateContext {
            ctx_id,
            context_init,
        };
        self.with(|live| live.call(&call, debug_name))
    }

    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        self.let_go(&Call::DestroyContext { ctx_id })
    }

    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        self.call(&Call::AttachResource {
            ctx_id,
            resource_id,
        })
    }

    fn detach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        self.let_go(&Call::DetachResource {
            ctx_id,
            resource_id,
        })
    }

    fn create_resource(
        &mut self,
        resource_id: u32,
        params: &Resource3d,
    ) -> Result<(), RendererError> {
        let params = *params;
        self.call(&Call::CreateResource {
            resource_id,
            params,
        })
    }

    fn create_blob(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        params: &BlobParams,
        pages: Option<&dyn GuestPages>,
    ) -> Result<(), RendererError> {
        let call = Call::CreateBlob {
            ctx_id,
            resource_id,
            params: *params,
            backed: pages.is_some(),
        };
        match pages {
            Some(pages) => self.call_with_pages(&call, resource_id, pages),
            None => self.call(&call),
        }
    }

    fn destroy_resource(&mut self, resource_id: u32) -> Result<(), RendererError> {
        let destroyed = self.let_go(&Call::DestroyResource { resource_id });
        self.forget_backing(resource_id);
        let cleared = self.unmap_unused();
        destroyed.and(cleared)
    }

    fn attach_backing(
        &mut self,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.call_with_pages(&Call::AttachBacking { resource_id }, resource_id, pages)
    }

    fn detach_backing(&mut self, resource_id: u32) -> Result<(), RendererError> {
        let detached = self.let_go(&Call::DetachBacking { resource_id });
        self.forget_backing(resource_id);
        let cleared = self.unmap_unused();
        detached.and(cleared)
    }

    fn transfer_to_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        let work = Work::TransferToHost {
            ctx_id,
            resource_id,
            transfer,
            pages,
        };
        self.run(work, None)
    }

    fn transfer_from_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        let work = Work::TransferFromHost {
            ctx_id,
            resource_id,
            transfer,
            pages,
        };
        self.run(work, None)
    }

    fn read_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.with(|live| live.read_pixels(resource_id, rect, stride, target))
    }

    fn read_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.with(|live| live.read_blob(resource_id, offset, target))
    }

    fn write_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        source: &[u8],
    ) -> Result<(), RendererError> {
        let call = Call::WriteBlob {
            resource_id,
            offset,
        };
        self.with(|live| live.call(&call, source))
    }

    fn write_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), RendererError> {
        self.with(|live| live.write_pixels(resource_id, rect, stride, source))
    }

    fn submit(
        &mut self,
        ctx_id: u32,
        stream: &[u8],
        in_fences: &[u64],
    ) -> Result<(), RendererError> {
        let work = Work::Submit {
            ctx_id,
            stream,
            in_fences,
        };
        self.run(work, None)
    }

    fn create_fence(&mut self, fence: Fence) -> Result<(), RendererError> {
        self.call(&Call::CreateFence(fence))
    }

    fn run_fenced(&mut self, work: Work<'_>, fence: Fence) -> Result<(), RendererError> {
        self.run(work, Some(fence))
    }

    fn poll(&mut self) -> Vec<Fence> {
        let State::Running(live) = &mut self.state else {
            return Vec::new();
        };
        match live.take_signalled() {
            Ok(signalled) => signalled,
            Err(error) => {
                let why = live.end(&error);
                self.state = State::Ended(why);
                Vec::new()
            }
        }
    }

    fn want_wakes(&mut self, wanted: bool) {
        if let State::Running(live) = &self.state {
            live.want_wakes(wanted);
        }
    }

    /// The process has nothing but virglrenderer, whose fences wait for work only.
    fn release_waits(&mut self) {}

    fn map_blob(&mut self, resource_id: u32) -> Result<BlobMapping, RendererError> {
        self.with(|live| live.map_blob(resource_id))
    }

    fn unmap_blob(&mut self, resource_id: u32) -> Result<(), RendererError> {
        self.let_go(&Call::UnmapBlob { resource_id })
    }

    fn failure(&self) -> Option<String> {
        match &self.state {
            State::Idle => None,
            State::Running(live) => live.ended(),
            State::Ended(why) => Some(why.clone()),
        }
    }

    fn restart(&mut self) -> Result<(), RendererError> {
        if let Some(why) = self.failure() {
            debug!("{why}; it is started when the guest needs it");
            self.state = State::Idle;
        }
        Ok(())
    }
}
