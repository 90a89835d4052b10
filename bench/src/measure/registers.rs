// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Register accesses: what `cargo bench -p virtio-pci-freeze` has measured, beside plain structs in memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::table::{Better, Column, Table, Target};
use crate::turns::{Row, Spread};

/// The group that the others are compared with, and the access in it.
const REFERENCE: &str = "raw struct: write queue_select";
/// Nanoseconds.
const TARGET: f64 = 60.0;
const FROZEN_RESET: &str = "frozen reset and reinstatement";

/// Reads what Criterion left in its directory.
pub(crate) fn registers(directory: &Path) -> Result<Vec<Table>> {
    let mut rows = Vec::new();
    collect(directory, &mut rows)?;
    ensure!(
        !rows.is_empty(),
        "no results in {}: run `cargo bench -p virtio-pci-freeze`",
        directory.display()
    );
    rows.sort_by(|one, other| other.name.cmp(&one.name));
    let (resets, accesses): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.name.starts_with(FROZEN_RESET));
    let column = |heading, target| Column {
        heading,
        better: Better::Lower,
        digits: 1,
        target: Some(Target::Value(target)),
    };
    let resets = resets.into_iter().map(in_micros).collect();
    Ok(vec![
        Table {
            title: "Register accesses".to_owned(),
            what: "Criterion's medians, with their confidence intervals.".to_owned(),
            columns: vec![column("ns", TARGET)],
            reference: Some(REFERENCE.to_owned()),
            rows: accesses,
        },
        Table {
            title: "A frozen reset in the transport".to_owned(),
            what: "With the negotiation after it; no device behind it.".to_owned(),
            columns: vec![column("µs", 20.0)],
            reference: None,
            rows: resets,
        },
    ])
}

fn in_micros(row: Row) -> Row {
    let values = row.values.map(|values| {
        let micros = values.into_iter().map(|value| Spread {
            low: value.low / 1e3,
            median: value.median / 1e3,
            high: value.high / 1e3,
        });
        micros.collect()
    });
    Row { values, ..row }
}

fn collect(directory: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths.into_iter().filter(|path| path.is_dir()) {
        if path.ends_with("new") {
            rows.push(read(&path)?);
        } else {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

fn read(directory: &Path) -> Result<Row> {
    let benchmark = json(&directory.join("benchmark.json"))?;
    let group = benchmark["group_id"].as_str().context("group_id")?;
    let name = match benchmark["function_id"].as_str() {
        Some(function) => format!("{group}: {function}"),
        None => group.to_owned(),
    };
    let estimates = json(&directory.join("estimates.json"))?;
    let median = &estimates["median"];
    let number = |value: &Value| value.as_f64().context("a number in estimates.json");
    let spread = Spread {
        low: number(&median["confidence_interval"]["lower_bound"])?,
        median: number(&median["point_estimate"])?,
        high: number(&median["confidence_interval"]["upper_bound"])?,
    };
    Ok(Row {
        ours: !name.starts_with("raw struct"),
        name,
        values: Ok(vec![spread]),
    })
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn results_are_read_from_where_criterion_writes_them() -> Result<()> {
        let directory = TempDir::new()?;
        for (group, nanoseconds) in [("raw struct", 1.0), ("register", 20.0)] {
            let new = directory.path().join(group).join("write queue_select/new");
            fs::create_dir_all(&new)?;
            let id = format!(r#"{{"group_id":"{group}","function_id":"write queue_select"}}"#);
            fs::write(new.join("benchmark.json"), id)?;
            let estimates = format!(
                r#"{{"median":{{"point_estimate":{nanoseconds},
                    "confidence_interval":{{"lower_bound":1.0,"upper_bound":30.0}}}}}}"#
            );
            fs::write(new.join("estimates.json"), estimates)?;
        }
        let tables = registers(directory.path())?;
        let text = tables[0].render();
        assert!(text.contains("20.0 (1.0 to 30.0) | 0.05"), "{text}");
        Ok(())
    }

    #[test]
    fn a_directory_without_results_is_an_error() -> Result<()> {
        let directory = TempDir::new()?;
        assert!(registers(directory.path()).is_err());
        Ok(())
    }
}
