// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole path, for a person to watch: a stock guest draws with OpenGL, sleeps, has its picture back and draws on;
//! and the same guest loses all when nothing is retained.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use guest_agent::protocol::Command;
use guest_agent::scene::{Client, Frame, Results, SceneRequest};
use tests::daemon::{Daemon, VIRGL};
use tests::guest::{Guest, Wake};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};

/// Of the guest's screen, in pixels.
const SIZE: (u32, u32) = (1024, 768);
/// Seconds from the request to sleep until the RTC wakes the guest.
const ALARM_S: u32 = 4;
/// The frame that is on the screen during the sleep, and the next one.
const SHOWN: u32 = 31;
const NEXT: u32 = 47;
/// For a frame of a client that has lost its objects.
const LOST_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let lab = Lab::find()?.context("no lab: run scripts/lab")?;
    let output = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package has a parent")?
        .join("target/demo");
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let retained = Cycle::run(&lab, "demo", &[], &output, "")?;
    let lost = Cycle::run(
        &lab,
        "demo-off",
        &["--freeze", "off"],
        &output,
        "-freeze-off",
    )?;
    Ok(verdict(&retained, &lost))
}

/// What one guest's sleep did to its picture and its client.
struct Cycle {
    renderer: String,
    asleep_ms: u64,
    pixels: usize,
    /// Pixels that the wake changed, before the guest drew anything.
    changed: usize,
    /// Whether the same process drew its next frame as it had drawn it before the sleep, to the last bit.
    drew_on: bool,
}

impl Cycle {
    fn run(lab: &Lab, name: &str, options: &[&str], output: &Path, suffix: &str) -> Result<Self> {
        let file = |stem: &str, extension: &str| output.join(format!("{stem}{suffix}.{extension}"));
        progress(name, "starting the device and booting Linux 7.x");
        let server = Daemon::start_3d(lab, name, SIZE, "", options)?
            .with_context(|| format!("{VIRGL} is not set: run scripts/demo"))?;
        let machine = Machine::new(name, Kernel::V7, Gpu::VfioUser(server.device_socket()));
        let guest = Guest::boot(lab, &machine.with_scene())?;
        progress(name, "drawing");
        let client: Client = guest.scene(SceneRequest::Describe)?;
        let next: Frame = guest.scene(SceneRequest::Frame { number: NEXT })?;
        let shown: Frame = guest.scene(SceneRequest::Frame { number: SHOWN })?;
        let picture = server.wait_for_hash("before", shown.screen)?;
        keep(&server, "before", &file("before", "png"))?;
        progress(name, "sleeping (ACPI S3), the RTC wakes the guest");
        let report = guest.sleep(Wake::Alarm(ALARM_S), || {
            let status = serde_json::to_string_pretty(&server.status()?)?;
            Ok(fs::write(file("asleep", "json"), status + "\n")?)
        })?;
        let after = server.screenshot("after")?;
        keep(&server, "after", &file("after", "png"))?;
        let changed = differing(&after.image, &picture);
        progress(name, "drawing on");
        let drew_on =
            drew_on(&guest, &server, &client, next).is_ok_and(|all_the_same| all_the_same);
        if drew_on {
            keep(&server, "next", &file("next", "png"))?;
        }
        Ok(Self {
            renderer: client.renderer,
            asleep_ms: report.asleep_ms,
            pixels: picture.pixels.len(),
            changed,
            drew_on,
        })
    }
}

/// An error if the client is gone, or waits for the device for ever.
fn drew_on(guest: &Guest, server: &Daemon, client: &Client, next: Frame) -> Result<bool> {
    let request = SceneRequest::Frame { number: NEXT };
    let pending = guest.agent().start(Command::Scene { request })?;
    let frame: Frame = guest.agent().finish(&pending, LOST_LIMIT)?;
    if frame != next {
        return Ok(false);
    }
    server.wait_for_hash("next", next.screen)?;
    let same: Client = guest.scene(SceneRequest::Describe)?;
    let results: Results = guest.scene(SceneRequest::Results)?;
    Ok(same == *client && results.captured == results.points)
}

fn progress(name: &str, step: &str) {
    eprintln!("{name}: {step}");
}

fn keep(server: &Daemon, name: &str, path: &PathBuf) -> Result<()> {
    fs::copy(server.picture(name), path).with_context(|| path.display().to_string())?;
    Ok(())
}

fn differing(shown: &Image, expected: &Image) -> usize {
    if (shown.width, shown.height) != (expected.width, expected.height) {
        return expected.pixels.len();
    }
    let pairs = shown.pixels.iter().zip(&expected.pixels);
    pairs.filter(|(shown, expected)| shown != expected).count()
}

/// Prints six lines and returns whether all is as it should be.
fn verdict(retained: &Cycle, lost: &Cycle) -> bool {
    let word = |good: bool| if good { "ok  " } else { "FAIL" };
    let drew = retained.renderer.contains("virgl");
    let slept = retained.asleep_ms > 0 && lost.asleep_ms > 0;
    let kept = retained.changed == 0;
    let control = lost.changed > 0 && !lost.drew_on;
    println!(
        "{} a stock Linux 7.x guest drew with OpenGL on {}",
        word(drew),
        retained.renderer
    );
    println!(
        "{} it slept in ACPI S3 for {} ms",
        word(slept),
        retained.asleep_ms
    );
    println!(
        "{} before it drew anything, {} of {} pixels were as before (before.png, after.png)",
        word(kept),
        retained.pixels - retained.changed,
        retained.pixels
    );
    println!(
        "{} the same process drew the next frame with its old objects, to the last bit (next.png)",
        word(retained.drew_on)
    );
    println!(
        "{} with --freeze off it lost {} of {} pixels (after-freeze-off.png), and its objects",
        word(control),
        lost.changed,
        lost.pixels
    );
    let all = drew && slept && kept && retained.drew_on && control;
    println!(
        "{} pictures and the device's status asleep are in target/demo",
        word(all)
    );
    all
}
