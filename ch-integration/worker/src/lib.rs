// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns a [`virtio_gpu_s3::Gpu`] and serves its queues, for any front end.
//!
//! A front end is what a VMM sees of the device: a PCI function behind vfio-user, or the VMM's own virtio transport. It
//! has a [`WorkerHandle`], through which everything is asked, and is told what was done through [`Frontend`]. The worker
//! alone knows what the device does: [`Status`] and [`Event`]s are made there, in the order in which things happened.
//!
//! An activation owns what belongs to it: the memory in which the driver set up its queues, the queues, and every answer
//! that is still owed. With the activation all of that goes, so that no late answer reaches memory of somebody else.

mod answer;
mod build;
mod claim;
mod command;
mod controlled;
#[cfg(any(test, feature = "test-utils"))]
mod driven;
mod events;
mod frontend;
mod gate;
mod handle;
mod life;
mod mailbox;
mod options;
mod picture;
mod ring;
pub mod seccomp;
mod session;
mod status;
mod worker;

pub use answer::{Answered, NoAnswer, PATIENCE};
pub use build::{BuildError, RING_FEATURES, build_gpu, new_config, new_renderer, new_renderer_in};
pub use command::{Activation, Done, GpuAccess, Job, Told};
pub use controlled::{Controlled, save_screens};
#[cfg(any(test, feature = "test-utils"))]
pub use driven::DrivenWorker;
pub use events::{Event, EventKind, EventLog, micros};
pub use frontend::{Completion, ConfigChange, Frontend, Memory, QUEUE_SIZES, ResetReport};
pub use handle::{Driver, StartFailure, VMM_PATIENCE, WorkerHandle, WorkerLink};
pub use options::{
    Backend, DeviceOptions, GpuOption, HoldList, LayoutOption, OptionError, OutputSize,
    RendererPlace, Switch, VmmGpuOption,
};
pub use picture::{
    MAX_PICTURE_BYTES, MAX_PICTURES, PictureError, PictureLimit, ResizeError, Screenshot,
    TooManyPictures, encode_png, save_png,
};
pub use session::bit;
pub use status::{Counters, Life, Resets, Scanout, State, Status, WorkerStatus};
pub use virtio_gpu_s3::{HOST_VISIBLE_SHM_ID, Image, saved_state::SavedGpu};
pub use virtio_pci_freeze::ActivationKind;
pub use worker::QUIESCE_LIMIT;
