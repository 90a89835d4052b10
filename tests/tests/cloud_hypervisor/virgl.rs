// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--gpu backend=virgl` of Cloud Hypervisor itself: virglrenderer in the VMM's process, behind its seccomp filters and
//! Landlock, with stock Mesa in the guest.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use guest_agent::scene::{Client, Frame, Kept, Results, SceneRequest};
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup};
use tests::scene::{must_be_as_before, must_differ};

use crate::sleep;
use crate::wait::until;

/// Small: software draws each pixel on one emulated processor, and another looks at it.
const OPTION: &str = "backend=virgl,width=160,height=120,id=gpu0,control=/tmp/control";
/// The frames that each sleep has before and after it.
const FRAMES: [u32; 3] = [3, 31, 47];

/// A guest whose OpenGL client has made its objects and drawn each frame once.
struct Guest {
    nested: Nested,
    client: Client,
    frames: Vec<(u32, Frame)>,
    kept: Kept,
    label: String,
    start: Instant,
}

impl Guest {
    /// `None` without a lab, or without a build that has 3D.
    fn boot(name: &str, kernel: Kernel, more: &str) -> Result<Option<Self>> {
        let (Some(vmm), Some(lab)) = (CloudHypervisor::find_virgl()?, Lab::find()?) else {
            return Ok(None);
        };
        let start = Instant::now();
        let setup = Setup {
            gpu: Gpu::InArguments,
            scene: true,
            arguments: vec![
                "--landlock --platform acpi_s3=on".to_owned(),
                format!("--gpu {OPTION}{more}"),
            ],
            ..Setup::new(name, kernel)
        };
        let nested = Nested::boot(&lab, &vmm, &setup)?;
        let client: Client = nested.scene(SceneRequest::Describe)?;
        ensure!(
            client.renderer.contains("virgl"),
            "the guest draws by itself: {client:?}"
        );
        // For the first frame llvmpipe compiles shaders on an emulated processor. Linux gives a wait for the GPU 15 s, and
        // Mesa then reads back what is there. Frames later are quick.
        nested.scene::<Frame>(SceneRequest::Frame { number: FRAMES[0] })?;
        let draw = |number| Ok((number, nested.scene(SceneRequest::Frame { number })?));
        let frames = FRAMES.into_iter().map(draw).collect::<Result<Vec<_>>>()?;
        let kept = nested.scene(SceneRequest::ReadKept)?;
        let guest = Self {
            nested,
            client,
            frames,
            kept,
            label: format!("{name}-{kernel}"),
            start,
        };
        guest.say(&format!("{:?}, {:?}", guest.client, guest.frames));
        must_differ(&guest.frames)?;
        Ok(Some(guest))
    }

    /// Progress, for a test that takes minutes.
    fn say(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs();
        eprintln!("{} {seconds} s: {what}", self.label);
    }

    /// Has the client draw frame `number`, which must be what it was before any sleep, in the guest and on the host.
    fn draw(&self, number: u32) -> Result<Frame> {
        let frame: Frame = self.nested.scene(SceneRequest::Frame { number })?;
        must_be_as_before(&self.frames, number, &frame)?;
        let shown = || self.is_shown(&frame);
        self.nested
            .explain(until("the frame on the screen", shown))?;
        Ok(frame)
    }

    fn is_shown(&self, frame: &Frame) -> Result<bool> {
        let shown = self.nested.screenshot("frame")?;
        Ok(shown.active && shown.image.hash() == frame.screen)
    }

    /// A sleep by the sleep control register and a wake by the API, around two frames.
    fn must_sleep(&self, shown: u32, next: u32) -> Result<()> {
        let frame = self.draw(shown)?;
        let pending = sleep::fall_asleep(&self.nested)?;
        self.nested.explain(self.nested.ch_remote("wakeup"))?;
        let report = self.nested.finish_sleep(&pending)?;
        // Before the client does anything.
        ensure!(self.is_shown(&frame)?, "the screen has lost frame {shown}");
        self.draw(next)?;
        self.must_be_the_same_client()?;
        self.say(&format!("slept {report:?}, drew frame {next}"));
        Ok(())
    }

    fn must_be_the_same_client(&self) -> Result<()> {
        let client: Client = self.nested.scene(SceneRequest::Describe)?;
        ensure!(client == self.client, "{client:?} was {:?}", self.client);
        let kept: Kept = self.nested.scene(SceneRequest::ReadKept)?;
        ensure!(kept == self.kept, "{kept:?} was {:?}", self.kept);
        let results: Results = self.nested.scene(SceneRequest::Results)?;
        ensure!(
            results.captured == results.points && results.signalled,
            "{results:?}"
        );
        Ok(())
    }

    fn must_sleep_twice(&self) -> Result<()> {
        for (sleep, pair) in (1..).zip(FRAMES.windows(2)) {
            let &[shown, next] = pair else {
                anyhow::bail!("windows of two");
            };
            self.must_sleep(shown, next)
                .with_context(|| format!("sleep {sleep}"))?;
        }
        let errors = self.nested.counter("errors")?;
        ensure!(errors == 0, "{errors} commands of the guest failed");
        self.nested.must_have_no_gpu_complaint(0)
    }
}

#[test]
fn an_opengl_client_of_linux_6_1_survives_two_sleeps() -> Result<()> {
    let Some(guest) = Guest::boot("ch-virgl", Kernel::V6_1, "")? else {
        return Ok(());
    };
    guest.must_sleep_twice()
}

#[test]
fn an_opengl_client_of_linux_7_survives_two_sleeps_behind_the_filters() -> Result<()> {
    let Some(guest) = Guest::boot("ch-virgl", Kernel::V7, "")? else {
        return Ok(());
    };
    // Every thread of the VMM but the first, which only waits, has a filter: the GPU's, and those that Mesa made.
    let filters = "cd /proc/$(pidof cloud-hypervisor)/task && for task in *; do \
                   echo $(cat $task/comm) $(grep ^Seccomp: $task/status | cut -f 2); done";
    let filters = guest.nested.run(filters)?;
    let gpu: Vec<_> = filters
        .lines()
        .filter(|line| line.starts_with("gpu0") || line.starts_with("llvmpipe"))
        .collect();
    guest.say(&format!("filters: {gpu:?}"));
    ensure!(
        gpu.len() >= 2 && gpu.iter().all(|line| line.ends_with(" 2")),
        "a thread without a filter: {filters}"
    );
    guest.must_sleep_twice()
}

/// The client maps memory of the host's OpenGL (`GL_EXT_buffer_storage`), writes the light of each frame there, and
/// finds after each sleep what it wrote before all of them.
#[test]
fn an_opengl_client_keeps_its_view_of_the_hosts_memory() -> Result<()> {
    let Some(guest) = Guest::boot("ch-virgl-hostmem", Kernel::V6_12, ",hostmem=64M")? else {
        return Ok(());
    };
    ensure!(guest.kept.mapped.is_some(), "nothing is mapped");
    guest.must_sleep_twice()
}

/// The same sleep without what makes the client survive.
#[test]
fn an_opengl_client_of_a_gpu_without_retention_loses_its_objects() -> Result<()> {
    let Some(guest) = Guest::boot("ch-virgl-freeze-off", Kernel::V6_1, ",freeze=off")? else {
        return Ok(());
    };
    let number = FRAMES[0];
    let frame = guest.draw(number)?;
    let pending = sleep::fall_asleep(&guest.nested)?;
    guest.nested.explain(guest.nested.ch_remote("wakeup"))?;
    guest.nested.finish_sleep(&pending)?;
    ensure!(!guest.is_shown(&frame)?, "the picture is still there");
    Ok(())
}
