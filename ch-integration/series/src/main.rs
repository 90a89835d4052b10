// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command behind `scripts/series`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use patch_series::check::check;
use patch_series::git::Git;
use patch_series::names::PartName;
use patch_series::overlap::overlaps;
use patch_series::patch::Patch;
use patch_series::publish::{branch, mails};
use patch_series::replay::{Identity, replay};
use patch_series::save::save;
use patch_series::store::{Part, Series, Store};

/// Keeps a patch series for a project of others without a line of that project.
#[derive(Debug, Parser)]
#[command(name = "patch-series")]
struct Options {
    /// The folder of the stored series
    #[arg(long, value_name = "DIR")]
    patches: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store the commits of a range as the patches of a part, in place of those that it has
    Save {
        /// A checkout of the project
        checkout: PathBuf,
        /// The part, as in `series`
        part: PartName,
        /// The commits, as in BASE..branch
        range: String,
    },
    /// Make a branch of the stored patches; the work tree stays as it is
    Apply {
        /// A checkout of the project
        checkout: PathBuf,
        /// Parts, all if none is named
        parts: Vec<PartName>,
        /// Name of the branch, which must be new
        #[arg(long, default_value = "virtio-gpu-s3")]
        branch: String,
        /// Switch the checkout to the branch
        #[arg(long)]
        switch: bool,
        /// The commit to start from; the base of the series, or what is checked out where that is not known
        #[arg(long, value_name = "COMMIT")]
        onto: Option<String>,
        /// Make the commits in the name of git's user, who sends them, and not in the project's
        #[arg(long)]
        me: bool,
    },
    /// Write the parts as mails of `git format-patch` in the name of git's user, each with its cover letter
    Export {
        /// A checkout of the project
        checkout: PathBuf,
        /// Where to write a folder for each part
        folder: PathBuf,
        /// Parts, all if none is named; the ones before them need not be named
        parts: Vec<PartName>,
        /// The commit to start from; the base of the series, or what is checked out where that is not known
        #[arg(long, value_name = "COMMIT")]
        onto: Option<String>,
    },
    /// Check the form of everything that is stored
    Check,
    /// Tell which added lines the base has too, so that people can see to it that none is kept here
    Overlap {
        /// A checkout of the project
        checkout: PathBuf,
        /// The commit to compare with; the base of the series if none is named
        #[arg(long)]
        base: Option<String>,
    },
    /// Print how many lines each patch adds and removes
    Lines,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let store = Store::new(&options.patches);
    match run(&store, &options.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("patch-series: error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(store: &Store, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Save {
            checkout,
            part,
            range,
        } => save_part(store, checkout, part, range)?,
        Command::Apply {
            checkout,
            parts,
            branch,
            switch,
            onto,
            me,
        } => {
            let identity = if *me {
                Identity::Caller
            } else {
                Identity::Project
            };
            apply(store, checkout, parts, branch, onto.as_deref(), identity)?;
            if *switch {
                Git::open(checkout)?.run(["switch", "--quiet", branch])?;
            }
        }
        Command::Export {
            checkout,
            folder,
            parts,
            onto,
        } => export(store, checkout, folder, parts, onto.as_deref())?,
        Command::Check => return check_all(store),
        Command::Overlap { checkout, base } => overlap(store, checkout, base.as_deref())?,
        Command::Lines => lines(&store.load()?),
    }
    Ok(ExitCode::SUCCESS)
}

fn save_part(
    store: &Store,
    checkout: &Path,
    part: &PartName,
    range: &str,
) -> Result<(), Box<dyn Error>> {
    let saved = save(store, &Git::open(checkout)?, part, range)?;
    for (number, patch) in (1..).zip(&saved.patches) {
        println!("{part}/{}", patch.file_name(number));
    }
    if saved.trailers > 0 {
        println!(
            "{} trailers left out: the sender adds their own",
            saved.trailers
        );
    }
    if saved.new {
        println!("{part} is new, and now the last in series");
    }
    if store.cover(part).is_err() {
        println!("{part}/cover.txt is missing: the text of the cover letter");
    }
    Ok(())
}

fn apply(
    store: &Store,
    checkout: &Path,
    parts: &[PartName],
    name: &str,
    onto: Option<&str>,
    identity: Identity,
) -> Result<(), Box<dyn Error>> {
    let series = store.load()?;
    let git = Git::open(checkout)?;
    let onto = onto.unwrap_or_else(|| start(&git, &series));
    let replayed = replay(&git, &series, &series.select(parts)?, onto, identity)?;
    branch(&git, &replayed, name)?;
    for (part, commits) in &replayed.parts {
        println!("{part}: {} commits", commits.len());
    }
    println!("branch {name} at {}", replayed.tip());
    Ok(())
}

/// The base of the series, whatever is checked out; what is checked out where the base is not known.
fn start<'a>(git: &Git, series: &'a Series) -> &'a str {
    let base = &series.base.commit;
    if git.commit(base).is_ok() {
        base
    } else {
        "HEAD"
    }
}

fn export(
    store: &Store,
    checkout: &Path,
    folder: &Path,
    chosen: &[PartName],
    onto: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let series = store.load()?;
    let selected = series.select(chosen)?;
    let git = Git::open(checkout)?;
    // A part is sent by itself, and is based on those before it.
    let last = selected.last().map(|part| &part.name);
    let end = series
        .parts
        .iter()
        .position(|part| Some(&part.name) == last);
    let needed: Vec<&Part> = series
        .parts
        .iter()
        .take(end.map_or(0, |end| end.saturating_add(1)))
        .collect();
    let onto = onto.unwrap_or_else(|| start(&git, &series));
    let replayed = replay(&git, &series, &needed, onto, Identity::Caller)?;
    for (part, count) in mails(&git, store, &replayed, chosen, folder)? {
        println!("{part}: {count} mails and a cover letter");
    }
    Ok(())
}

fn check_all(store: &Store) -> Result<ExitCode, Box<dyn Error>> {
    let (series, faults) = check(store)?;
    for fault in &faults {
        eprintln!("patch-series: {fault}");
        let mut source = fault.source();
        while let Some(cause) = source {
            eprintln!("  {cause}");
            source = cause.source();
        }
    }
    if !faults.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if series.parts.is_empty() {
        println!("no part is stored");
    }
    for part in &series.parts {
        println!("{}: {} patches in form", part.name, part.patches.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn overlap(store: &Store, checkout: &Path, base: Option<&str>) -> Result<(), Box<dyn Error>> {
    let series = store.load()?;
    let git = Git::open(checkout)?;
    let base = git.commit(base.unwrap_or(&series.base.commit))?;
    let patches = series.parts.iter().flat_map(|part| &part.patches);
    let found = overlaps(&git, &base, patches)?;
    for run in &found {
        println!(
            "{}: {}: {} lines from `{}`, as in {}",
            run.patch, run.path, run.lines, run.first, run.origin
        );
    }
    println!("{} runs of lines that the base has too", found.len());
    Ok(())
}

fn lines(series: &Series) {
    println!("{:>6} {:>6} {:>6} {:>6}  patch", "files", "+", "-", "code");
    let row = |files: usize, added: usize, removed: usize, code: usize, name: &str| {
        println!("{files:>6} {added:>6} {removed:>6} {code:>6}  {name}");
    };
    for part in &series.parts {
        let patches = || part.patches.iter().map(|stored| &stored.patch);
        for stored in &part.patches {
            let patch = &stored.patch;
            row(
                patch.files.len(),
                patch.added(),
                patch.removed(),
                patch.code(),
                &stored.name,
            );
        }
        row(
            patches().map(|patch| patch.files.len()).sum(),
            patches().map(Patch::added).sum(),
            patches().map(Patch::removed).sum(),
            patches().map(Patch::code).sum(),
            &format!("{} in all", part.name),
        );
    }
}
