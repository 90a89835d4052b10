// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device costs, beside memcpy and beside other virtio-gpu devices, each driven through a virtqueue in shared
//! memory by the same driver. `scripts/bench` gives this program what it needs.

mod contender;
mod cores;
mod machine;
mod measure;
mod pace;
mod pci;
mod process;
mod queue;
mod ram;
mod table;
mod turns;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::contender::{Entrant, Kind, Programs, start_all};
use crate::cores::Cores;
use crate::pace::Pace;
use crate::ram::{Layout, Ram};
use crate::table::Table;
use crate::turns::Effort;

/// The lines of a document between which the tables go.
const MARKERS: [&str; 2] = ["<!-- tables -->", "<!-- end of tables -->"];

/// Below so many other threads that run nobody else was there.
const IDLE: f64 = 0.3;
/// Measurements of which the last counts in any case.
const ATTEMPTS: u32 = 3;

/// Measures the device and its peers, and prints tables.
#[derive(Debug, Parser)]
#[command(about)]
struct Options {
    /// A few rounds only: shows that everything works, not how fast
    #[arg(long)]
    quick: bool,

    /// Measure this only
    #[arg(long, value_enum, conflicts_with = "update")]
    only: Option<Part>,

    /// A QEMU to compare with
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,

    /// A vhost-device-gpu to compare with
    #[arg(long, value_name = "PROGRAM")]
    vhost_device_gpu: Option<PathBuf>,

    /// Where Criterion left its results of virtio-pci-freeze
    #[arg(long, value_name = "DIRECTORY")]
    criterion: Option<PathBuf>,

    /// Replace the tables in this document too
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,

    /// Fail if a device that is named here, or one of ours, did not run
    #[arg(long)]
    strict: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Frames,
    Damage,
    Commands,
    Rendering,
    Sleep,
}

impl Options {
    fn effort<'a>(&self, pace: &'a Pace) -> Effort<'a> {
        let (rounds, divisor) = if self.quick { (3, 10) } else { (31, 1) };
        Effort {
            rounds,
            divisor,
            pace,
        }
    }

    fn programs(&self) -> Result<Programs> {
        let own = env::current_exe()?;
        let server = own.with_file_name("virtio-gpu-s3d");
        Ok(Programs {
            server: server.exists().then_some(server),
            qemu: self.qemu.clone(),
            vhost: self.vhost_device_gpu.clone(),
        })
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let cores = Cores::choose()?;
    let pace = if options.quick {
        Pace::any(cores)
    } else {
        Pace::full(cores)?
    };
    let effort = options.effort(&pace);
    let mut ram = Ram::new()?;
    let mut entrants = start_all(&mut ram, &options.programs()?, cores)?;
    let measured = measure_undisturbed(&ram, &mut entrants, effort, options.only);
    // Mesa's exit handlers crash a process whose renderer is still going.
    drop(entrants);
    machine::wait_for_threads()?;
    let mut tables = measured?;
    if let Some(directory) = &options.criterion {
        tables.extend(measure::registers(directory)?);
    }
    let mut text = conditions(options, effort)?;
    for table in &tables {
        text.push('\n');
        text.push_str(&table.render());
    }
    println!("{text}");
    eprintln!("{} s", start.elapsed().as_secs());
    if let Some(path) = &options.update {
        update(path, &text)?;
    }
    if options.strict {
        check(&tables, options)?;
    }
    Ok(())
}

/// What one has to know to read the figures.
fn conditions(options: &Options, effort: Effort<'_>) -> Result<String> {
    let rounds = effort.rounds;
    let mut text = format!(
        "{}, Linux {}. Medians of {rounds} rounds (and their quartiles).",
        machine::processor()?,
        machine::kernel()?
    );
    if effort.pace.cores().is_none() {
        text.push_str(" **Driver and devices shared one core.**");
    }
    if options.quick {
        text.push_str(" **A quick run: it shows that everything works, not how fast.**");
    }
    let others = effort.pace.others();
    if others > IDLE {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            " **The machine was not idle: {others:.1} other threads ran.**"
        );
    }
    if !options.quick {
        let lap = effort.pace.lap();
        let _ = write!(
            text,
            " The loop that tells of shared cores took {lap:.1} µs."
        );
    }
    let disturbed = effort.pace.disturbed();
    if disturbed >= 0.5 {
        let _ = write!(
            text,
            " **Others had part of a core in {disturbed:.0} % of the turns.**"
        );
    }
    text.push('\n');
    Ok(text)
}

/// Measures all, and again if that shows that the cores can do better.
fn measure_undisturbed(
    ram: &Ram,
    entrants: &mut [Entrant],
    effort: Effort<'_>,
    only: Option<Part>,
) -> Result<Vec<Table>> {
    for _ in 1..ATTEMPTS {
        effort.pace.begin();
        let tables = measure_all(ram, entrants, effort, only)?;
        if !effort.pace.was_mistaken() {
            return Ok(tables);
        }
        eprintln!("the cores were shared all the time until now: measuring again");
    }
    effort.pace.begin();
    measure_all(ram, entrants, effort, only)
}

fn measure_all(
    ram: &Ram,
    entrants: &mut [Entrant],
    effort: Effort<'_>,
    only: Option<Part>,
) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for part in Part::value_variants() {
        if only.is_some_and(|only| only != *part) {
            continue;
        }
        eprintln!("measuring {part:?}");
        match part {
            Part::Frames => {
                for layout in [Layout::Contiguous, Layout::Pages] {
                    tables.push(measure::frames(ram, entrants, effort, layout)?);
                }
            }
            Part::Damage => {
                for damage in measure::Damage::ALL {
                    tables.push(measure::rects(ram, entrants, effort, damage)?);
                }
            }
            Part::Commands => {
                tables.push(measure::round_trips(entrants, effort));
                tables.push(measure::batched(entrants, effort));
            }
            Part::Rendering => tables.push(measure::submit(entrants, effort)?),
            Part::Sleep => tables.push(measure::sleep(entrants, effort)?),
        }
    }
    Ok(tables)
}

fn update(path: &Path, tables: &str) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let new = replaced(&old, tables).context("no markers for the tables")?;
    fs::write(path, new).with_context(|| path.display().to_string())
}

/// The document with other tables.
fn replaced(document: &str, tables: &str) -> Option<String> {
    let [from, to] = MARKERS;
    let (before, rest) = document.split_once(from)?;
    let (_, after) = rest.split_once(to)?;
    Some(format!(
        "{before}{from}\n{}\n{to}{after}",
        tables.trim_end()
    ))
}

/// Whether everybody that is there ran to the end.
fn check(tables: &[Table], options: &Options) -> Result<()> {
    for table in tables {
        for row in &table.rows {
            if let Err(reason) = &row.values {
                ensure!(
                    absence_is_known(&row.name, options),
                    "{}: {}: {reason}",
                    table.title,
                    row.name
                );
            }
        }
    }
    Ok(())
}

fn absence_is_known(name: &str, options: &Options) -> bool {
    let is = |kind: Kind| name == kind.name();
    let no_renderer = is(Kind::FunctionVirgl) || is(Kind::ServerVirgl);
    let vhost = is(Kind::VhostNull) || is(Kind::VhostVirgl);
    is(Kind::Qemu) && options.qemu.is_none()
        || vhost && options.vhost_device_gpu.is_none()
        || no_renderer && !cfg!(feature = "virgl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_of_a_document_are_replaced() {
        let [from, to] = MARKERS;
        let document = format!("a\n{from}\nold\n{to}\nb\n");
        let expected = format!("a\n{from}\nnew\n{to}\nb\n");
        assert_eq!(replaced(&document, "new\n"), Some(expected.clone()));
        assert_eq!(replaced(&expected, "new\n"), Some(expected));
        assert_eq!(replaced("a\n", "new"), None);
    }
}
