// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Saved states with fields changed. Shared with the fuzz target of the same purpose.

use serde_json::Value;
use virtio_pci_freeze::test_utils::{Machine, Program, check_invariants};
use virtio_pci_freeze::{RestoredDevice, SavedFunction, VirtioPciFunction};

/// Bytes of one change: which field, and what it becomes.
const PATCH: usize = 10;
/// Values that mean something to some field.
const WORDS: [&str; 8] = [
    "seed",
    "tail",
    "none",
    "frozen",
    "freezing",
    "standing",
    "running",
    "suspended",
];

/// Runs a program, saves, changes fields, restores, and goes on with the rest of the program where it is accepted.
/// Returns whether it was.
///
/// The first byte is the number of changes, which follow, and the program comes last.
pub(crate) fn restore_and_go_on(bytes: &[u8]) -> bool {
    let (count, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let patches = rest.len().min(usize::from(count % 8) * PATCH);
    let (patches, program) = rest.split_at(patches);
    let program = Program::decode(program);
    let machine = program.run();
    let saved = machine.function.save(&machine.device.positions);
    let mut json = serde_json::to_value(saved).expect("what is saved can be written");
    for patch in patches.as_chunks::<PATCH>().0 {
        let [a, b, value @ ..] = *patch;
        let leaves = count_leaves(&json);
        let mut leaf = usize::from(u16::from_le_bytes([a, b])) % leaves.max(1);
        change_leaf(&mut json, &mut leaf, u64::from_le_bytes(value));
    }
    let Ok(saved) = serde_json::from_value::<SavedFunction>(json) else {
        return false;
    };
    let device = if count & 0x80 == 0 {
        RestoredDevice::Intact
    } else {
        RestoredDevice::Lost
    };
    let Ok((function, effects)) = VirtioPciFunction::restore(program.config(), &saved, device)
    else {
        return false;
    };
    let mut restored = Machine::with_function(function);
    restored.carry_out(effects);
    check_invariants(&mut restored);
    let saved = restored.function.save(&restored.device.positions);
    let again = VirtioPciFunction::restore(program.config(), &saved, RestoredDevice::Intact);
    let (again, _) = again.expect("what is saved can be restored");
    assert_eq!(again.save(&restored.device.positions), saved);
    program.go_on(restored);
    true
}

fn count_leaves(json: &Value) -> usize {
    match json {
        Value::Array(values) => values.iter().map(count_leaves).sum(),
        Value::Object(fields) => fields.values().map(count_leaves).sum(),
        _ => 1,
    }
}

fn change_leaf(json: &mut Value, leaf: &mut usize, value: u64) {
    match json {
        Value::Array(values) => {
            for inner in values {
                change_leaf(inner, leaf, value);
            }
        }
        Value::Object(fields) => {
            for inner in fields.values_mut() {
                change_leaf(inner, leaf, value);
            }
        }
        _ => {
            if *leaf == 0 {
                *json = changed(json, value);
            }
            *leaf = leaf.wrapping_sub(1);
        }
    }
}

fn changed(old: &Value, value: u64) -> Value {
    match old {
        Value::Number(number) => {
            let old = number.as_u64().unwrap_or(0);
            let [how, ..] = value.to_le_bytes();
            // Small steps and single bits stay near what is valid; the rest is anything.
            match how % 4 {
                0 => old.wrapping_add(value >> 8 & 3).into(),
                1 => (old ^ 1 << (value >> 8 & 63)).into(),
                2 => (value >> 8 & 0xffff).into(),
                _ => (value >> 8).into(),
            }
        }
        Value::Bool(old) => (!old).into(),
        Value::String(_) => {
            let word = usize::try_from(value % 8).unwrap_or(0);
            WORDS[word].into()
        }
        _ => value.into(),
    }
}
