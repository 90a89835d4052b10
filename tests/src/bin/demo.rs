// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole path, for a person to watch: a stock guest draws, sleeps, and has its picture back; and the same guest
//! loses it when nothing is retained.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use guest_agent::protocol::Target;
use tests::daemon::Daemon;
use tests::guest::{Guest, Wake};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};

/// Seconds from the request to sleep until the RTC wakes the guest.
const ALARM_S: u32 = 4;

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

/// What one guest's sleep did to its picture.
struct Cycle {
    asleep_ms: u64,
    pixels: usize,
    /// Pixels that the wake changed, before the guest drew anything.
    changed: usize,
    /// Whether the next picture arrived whole; `None` if it was not tried.
    drew_again: Option<bool>,
}

impl Cycle {
    fn run(lab: &Lab, name: &str, options: &[&str], output: &Path, suffix: &str) -> Result<Self> {
        let file = |stem: &str, extension: &str| output.join(format!("{stem}{suffix}.{extension}"));
        progress(name, "starting the device and booting Linux 7.x");
        let server = Daemon::start(lab, name, options)?;
        let machine = Machine::new(name, Kernel::V7, Gpu::VfioUser(server.device_socket()));
        let guest = Guest::boot(lab, &machine)?;
        progress(name, "drawing");
        let picture = guest.draw(Target::Fb, 1)?;
        server.wait_for_picture("before", &picture)?;
        keep(&server, "before", &file("before", "png"))?;
        progress(name, "sleeping (ACPI S3), the RTC wakes the guest");
        let report = guest.sleep(Wake::Alarm(ALARM_S), || {
            let status = serde_json::to_string_pretty(&server.status()?)?;
            Ok(fs::write(file("asleep", "json"), status + "\n")?)
        })?;
        let after = server.screenshot("after")?;
        keep(&server, "after", &file("after", "png"))?;
        let changed = differing(&after.image, &picture);
        let drew_again = options.is_empty().then(|| {
            progress(name, "drawing again");
            let next = guest.draw(Target::Fb, 2);
            next.and_then(|next| server.wait_for_picture("again", &next))
                .is_ok()
        });
        Ok(Self {
            asleep_ms: report.asleep_ms,
            pixels: picture.pixels.len(),
            changed,
            drew_again,
        })
    }
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

/// Prints five lines and returns whether all is as it should be.
fn verdict(retained: &Cycle, lost: &Cycle) -> bool {
    let word = |good: bool| if good { "ok  " } else { "FAIL" };
    let slept = retained.asleep_ms > 0 && lost.asleep_ms > 0;
    let kept = retained.changed == 0;
    let drew = retained.drew_again == Some(true);
    let control = lost.changed > 0;
    println!(
        "{} a stock Linux 7.x guest drew, and slept in ACPI S3 for {} ms",
        word(slept),
        retained.asleep_ms
    );
    println!(
        "{} before it drew anything, {} of {} pixels were as before (before.png, after.png)",
        word(kept),
        retained.pixels - retained.changed,
        retained.pixels
    );
    println!("{} the next picture it drew arrived whole", word(drew));
    println!(
        "{} with --freeze off the same guest lost {} of {} pixels (after-freeze-off.png)",
        word(control),
        lost.changed,
        lost.pixels
    );
    let all = slept && kept && drew && control;
    println!(
        "{} pictures and the device's status asleep are in target/demo",
        word(all)
    );
    all
}
