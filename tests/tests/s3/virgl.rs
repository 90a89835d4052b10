// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 3D: a client in the guest whose objects were made before the sleep draws the same frame after it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest_agent::protocol::{Command, RunReport};
use guest_agent::scene::{Animated, Client, Frame, Kept, Results, SceneRequest};
use serde_json::json;
use tests::guest::Wake;
use tests::image::Image;
use tests::lab::Kernel;
use tests::scene::{must_be_as_before, must_differ};

use crate::on_every_kernel;
use crate::rig::{NO_RETENTION, Rig, SOFT_RESET};

/// Of the screen, in pixels: software draws it, and an emulated processor looks at each.
const SIZE: (u32, u32) = (640, 480);
/// The frames that each sleep has before and after it.
const FRAMES: [u32; 4] = [3, 31, 47, 80];
/// For a frame that must not come. One takes a tenth of a second on an idle machine.
const LOST_LIMIT: Duration = Duration::from_secs(5);

on_every_kernel!(
    an_opengl_client_survives_four_sleeps_with_default_options,
    an_opengl_client_survives_four_sleeps_when_the_driver_resets_the_function,
    an_opengl_client_survives_four_sleeps_with_freeze_mode_alone,
    an_opengl_client_keeps_its_view_of_the_hosts_memory_over_four_sleeps,
    an_opengl_client_of_a_device_without_retention_loses_its_objects,
    a_stock_benchmark_goes_on_after_a_sleep,
);

fn an_opengl_client_survives_four_sleeps_with_default_options(kernel: Kernel) -> Result<()> {
    four_sleeps("virgl", kernel, &[], false)
}

fn an_opengl_client_survives_four_sleeps_when_the_driver_resets_the_function(
    kernel: Kernel,
) -> Result<()> {
    four_sleeps("virgl-soft-reset", kernel, &SOFT_RESET, false)
}

fn an_opengl_client_survives_four_sleeps_with_freeze_mode_alone(kernel: Kernel) -> Result<()> {
    let options = ["--no-soft-reset", "off", "--hold", "none"];
    four_sleeps("virgl-freeze-mode", kernel, &options, true)
}

/// Of a few frames: what a client needs to show that it goes on.
const FRAMES_OF_COMMANDS: u64 = 20;
/// More commands than the console needs, and far fewer than a benchmark.
const BENCHMARK_DRAWS: u64 = 100;
/// Where the guest keeps what the benchmark says.
const BENCHMARK_OUTPUT: &str = "/tmp/benchmark";
/// The benchmark's own time, and what an emulated guest needs to load it.
const BENCHMARK_LIMIT: Duration = Duration::from_secs(60);

/// A client with what it drew and read back before any sleep.
struct Before {
    rig: Rig,
    client: Client,
    frames: Vec<(u32, Frame)>,
    kept: Kept,
}

impl Before {
    /// `None` where there is no lab, or no server with 3D.
    fn start(name: &str, kernel: Kernel, more: &str, options: &[&str]) -> Result<Option<Self>> {
        let Some(rig) = Rig::start_3d(name, kernel, SIZE, more, options)? else {
            return Ok(None);
        };
        let client: Client = rig.guest.scene(SceneRequest::Describe)?;
        ensure!(
            client.renderer.contains("virgl"),
            "the guest draws by itself: {client:?}"
        );
        let draw = |number| Ok((number, rig.guest.scene(SceneRequest::Frame { number })?));
        let frames = FRAMES.into_iter().map(draw).collect::<Result<Vec<_>>>()?;
        let kept = rig.guest.scene(SceneRequest::ReadKept)?;
        let before = Self {
            rig,
            client,
            frames,
            kept,
        };
        must_differ(&before.frames)?;
        Ok(Some(before))
    }

    /// Has the client draw frame `number`, which must be what it was before any sleep, in the guest and on the host.
    fn draw(&self, number: u32) -> Result<Image> {
        let frame: Frame = self.rig.guest.scene(SceneRequest::Frame { number })?;
        must_be_as_before(&self.frames, number, &frame)?;
        let name = format!("frame-{number}");
        self.rig.server.wait_for_hash(&name, frame.screen)
    }

    /// A sleep that comes while the client draws, with commands and fences on their way.
    fn sleep_drawing(&self, freeze_mode: bool) -> Result<()> {
        let guest = &self.rig.guest;
        guest.scene::<()>(SceneRequest::Animate)?;
        self.rig.wait_for_commands(FRAMES_OF_COMMANDS)?;
        if freeze_mode {
            self.rig.freezectl("freeze")?;
        }
        guest.sleep(Wake::Host, || Ok(()))?;
        if freeze_mode {
            self.rig.freezectl("unfreeze")?;
        }
        self.rig
            .wait_for_commands(FRAMES_OF_COMMANDS)
            .context("drawing on after the wake")?;
        let drawn: Animated = guest.scene(SceneRequest::Stop)?;
        ensure!(drawn.frames > 0, "the client drew nothing");
        self.draw(FRAMES[0])
            .context("after a sleep while drawing")?;
        self.must_be_the_same_client()
    }

    fn must_be_the_same_client(&self) -> Result<()> {
        let client: Client = self.rig.guest.scene(SceneRequest::Describe)?;
        ensure!(client == self.client, "{client:?} was {:?}", self.client);
        let kept: Kept = self.rig.guest.scene(SceneRequest::ReadKept)?;
        ensure!(kept == self.kept, "{kept:?} was {:?}", self.kept);
        let results: Results = self.rig.guest.scene(SceneRequest::Results)?;
        ensure!(
            results.captured == results.points && results.signalled,
            "{results:?}"
        );
        Ok(())
    }
}

/// A client that has memory of the host's OpenGL in its sight (`GL_EXT_buffer_storage`), writes the light of each frame
/// there, and reads after each sleep what it wrote before all of them.
fn an_opengl_client_keeps_its_view_of_the_hosts_memory_over_four_sleeps(
    kernel: Kernel,
) -> Result<()> {
    let options: &[&str] = &SOFT_RESET;
    let Some(before) = Before::start("virgl-hostmem", kernel, "hostmem=64M", options)? else {
        return Ok(());
    };
    let found = before.rig.guest.dmesg(0)?;
    let features = found.iter().find(|it| it.text.contains("+host_visible"));
    ensure!(features.is_some(), "no shared memory: {found:?}");
    ensure!(before.kept.mapped.is_some(), "nothing is mapped");
    sleep_four_times(&before, false)
}

fn four_sleeps(name: &str, kernel: Kernel, options: &[&str], freeze_mode: bool) -> Result<()> {
    let Some(before) = Before::start(name, kernel, "", options)? else {
        return Ok(());
    };
    ensure!(before.kept.mapped.is_none(), "{:?}", before.kept);
    sleep_four_times(&before, freeze_mode)
}

fn sleep_four_times(before: &Before, freeze_mode: bool) -> Result<()> {
    let rig = &before.rig;
    for (sleep, pair) in (1..).zip(FRAMES.windows(2)) {
        let context = || format!("sleep {sleep}");
        let &[shown, next] = pair else {
            bail!("windows of two");
        };
        if freeze_mode {
            rig.freezectl("freeze")?;
        }
        let picture = before.draw(shown).with_context(context)?;
        rig.sleep_keeping(&picture, Wake::Host)
            .with_context(context)?;
        if freeze_mode {
            rig.freezectl("unfreeze")?;
            rig.server.must_show("after-unfreeze", &picture)?;
        }
        before.draw(next).with_context(context)?;
        before.must_be_the_same_client().with_context(context)?;
    }
    before.sleep_drawing(freeze_mode)?;
    let errors = rig.server.counter("errors")?;
    ensure!(errors == 0, "{errors} commands of the guest failed");
    rig.guest.must_have_no_gpu_complaint(0)
}

/// Longer than QEMU waits for an answer, 5 s, and than any wait of the device's.
const STOPPED: Duration = Duration::from_secs(7);

/// A renderer that stands still while the guest falls asleep and wakes. One that has nothing to do costs nothing; with
/// commands under way it may be ended, with an event that says why. QEMU, the guest and the server go on in any case.
#[test]
fn a_renderer_that_is_stopped_over_a_sleep_keeps_nobody_from_going_on() -> Result<()> {
    let Some(before) = Before::start("virgl-stopped", Kernel::V6_12, "", &[])? else {
        return Ok(());
    };
    let (guest, server) = (&before.rig.guest, &before.rig.server);
    before.draw(FRAMES[0])?;
    sleep_with_renderer_stopped(&before)?;
    before.draw(FRAMES[1]).context("after a quiet sleep")?;
    before.must_be_the_same_client()?;

    guest.scene::<()>(SceneRequest::Animate)?;
    before.rig.wait_for_commands(FRAMES_OF_COMMANDS)?;
    let from = server.position();
    sleep_with_renderer_stopped(&before)?;
    let path = "/proc/uptime".to_owned();
    guest.call::<String>(Command::Read { path })?;
    guest.qmp().execute("query-status", &json!({}))?;
    if server
        .events(from)
        .iter()
        .any(|it| it == "renderer-crashed")
    {
        let state = server.status()?["state"].clone();
        ensure!(state == "needs-reset", "the server says {state}");
    } else {
        before.rig.wait_for_commands(FRAMES_OF_COMMANDS)?;
        guest.scene::<Animated>(SceneRequest::Stop)?;
        before.draw(FRAMES[0])?;
    }
    Ok(())
}

fn sleep_with_renderer_stopped(before: &Before) -> Result<()> {
    let server = &before.rig.server;
    server.signal_renderer("STOP")?;
    let slept = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(STOPPED);
            // It is gone where it was ended.
            drop(server.signal_renderer("CONT"));
        });
        before.rig.guest.sleep(Wake::Host, || Ok(()))
    });
    slept.map(drop).context("with its renderer stopped")
}

fn an_opengl_client_of_a_device_without_retention_loses_its_objects(kernel: Kernel) -> Result<()> {
    let Some(before) = Before::start("virgl-freeze-off", kernel, "", &NO_RETENTION)? else {
        return Ok(());
    };
    let rig = &before.rig;
    let picture = before.draw(FRAMES[0])?;
    rig.sleep_losing(&picture)?;
    let number = FRAMES[1];
    let request = SceneRequest::Frame { number };
    let pending = rig.guest.agent().start(Command::Scene { request })?;
    match rig.guest.agent().finish::<Frame>(&pending, LOST_LIMIT) {
        Ok(frame) => ensure!(
            before.frames.iter().all(|(_, known)| *known != frame),
            "frame {number} came as it was"
        ),
        // The client ended, or waits for the device for ever.
        Err(error) => println!("{kernel}: {error:#}"),
    }
    Ok(())
}

/// A client that knows nothing of sleeps, with the driver's reset in the middle of its run.
fn a_stock_benchmark_goes_on_after_a_sleep(kernel: Kernel) -> Result<()> {
    // The guest's clock stands still while it sleeps, so that a part of this comes after the wake.
    // virtio-gpu's driver shows no pixels with an alpha channel.
    const RUN: &str = "chroot /scene /usr/bin/glmark2-es2-drm --visual-config alpha=0 \
                       --benchmark shading:shading=phong:duration=8";
    let Some(rig) = Rig::start_3d("virgl-glmark2", kernel, SIZE, "", &SOFT_RESET)? else {
        return Ok(());
    };
    let command = format!("{{ {RUN}; echo $?; }} >{BENCHMARK_OUTPUT} 2>&1 &");
    let arguments = vec!["-c".to_owned(), command];
    let program = "sh".to_owned();
    let run: RunReport = rig.guest.call(Command::Run { program, arguments })?;
    ensure!(run.status == Some(0), "{run:?}");
    let draws = || {
        rig.wait_for_commands(BENCHMARK_DRAWS)
            .with_context(|| format!("the benchmark says: {:?}", read(&rig, BENCHMARK_OUTPUT)))
    };
    draws()?;
    rig.guest.sleep(Wake::Host, || Ok(()))?;
    draws().context("after the wake")?;
    let output = benchmark_output(&rig)?;
    println!("{kernel}: {output}");
    let score = output.lines().find(|line| line.contains("glmark2 Score: "));
    ensure!(score.is_some(), "no score: {output}");
    ensure!(output.contains("virgl"), "not on virgl: {output}");
    rig.guest.must_have_no_gpu_complaint(0)
}

fn read(rig: &Rig, path: &str) -> Result<String> {
    let path = path.to_owned();
    rig.guest.call(Command::Read { path })
}

/// Waits for the benchmark to end.
fn benchmark_output(rig: &Rig) -> Result<String> {
    let deadline = Instant::now() + BENCHMARK_LIMIT;
    loop {
        let output = read(rig, BENCHMARK_OUTPUT)?;
        // The last line is its exit status.
        if output
            .lines()
            .next_back()
            .is_some_and(|line| line.parse::<u8>().is_ok())
        {
            return Ok(output);
        }
        ensure!(Instant::now() < deadline, "it goes on for ever: {output}");
        thread::sleep(Duration::from_millis(200));
    }
}
