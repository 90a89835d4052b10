// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the fuzzers start from: programs that are known to lead somewhere, kept as files and run here.

use std::env;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use virtio_pci_freeze::test_utils::{Program, SleepPath, Step};

use crate::common::{STRIDE, cases};
use crate::patched::restore_and_go_on;

const FREEZE: Step = Step::WriteRegister {
    index: 16,
    value: 3,
};
const UNFREEZE: Step = Step::WriteRegister {
    index: 16,
    value: 0,
};
const RESET: Step = Step::WriteRegister { index: 6, value: 0 };
const SUSPEND: Step = Step::WriteRegister {
    index: 6,
    value: 0x1f,
};
const RESUME: Step = Step::WriteRegister {
    index: 6,
    value: 0x1f,
};
const SLOW: Step = Step::Device {
    answers: false,
    can_retain: true,
};
const LOSES: Step = Step::Device {
    answers: true,
    can_retain: false,
};
const RESTORE: Step = Step::SaveAndRestore { lost: false };

const NO_HOOKS: [Step; 7] = sleep(SleepPath::NoHooks);
const HOOKS: [Step; 7] = sleep(SleepPath::Hooks);
const NO_RESET: [Step; 7] = sleep(SleepPath::NoReset);

const fn sleep(path: SleepPath) -> [Step; 7] {
    [
        Step::Bind,
        Step::UseBuffers { queue: 0 },
        Step::Suspend { path },
        Step::Notify { queue: 0 },
        Step::FunctionReset,
        Step::Resume { path },
        Step::Notify { queue: 0 },
    ]
}

/// A program and whether it has a frozen reset that the process which runs it at the end has seen.
struct Seed {
    name: &'static str,
    setup: u8,
    steps: &'static [Step],
    frozen: bool,
}

const fn seed(name: &'static str, setup: u8, frozen: bool, steps: &'static [Step]) -> Seed {
    Seed {
        name,
        setup,
        steps,
        frozen,
    }
}

const CHANGE: Step = Step::UpdateDeviceConfig {
    offset: 0,
    value: 1,
};
const LOST: Step = Step::SaveAndRestore { lost: true };
const NOTIFY: Step = Step::Notify { queue: 1 };

const SEEDS: [Seed; 20] = [
    seed("sleep-no-hooks", 0, true, &NO_HOOKS),
    seed("sleep-hooks", 0, true, &HOOKS),
    seed("sleep-no-reset", 8, false, &NO_RESET),
    seed(
        "sleep-same-driver",
        4,
        true,
        &[Step::Bind, RESET, Step::Bind],
    ),
    seed("sleep-vmm-vectors", 0x40, true, &NO_HOOKS),
    seed(
        "freeze",
        0,
        true,
        &[Step::Bind, FREEZE, RESET, Step::Bind, UNFREEZE],
    ),
    seed(
        "freeze-lost",
        0,
        false,
        &[Step::Bind, FREEZE, LOSES, RESET, Step::Bind],
    ),
    seed(
        "freeze-slow",
        0,
        true,
        &[Step::Bind, SLOW, FREEZE, RESET, Step::Answer, Step::Answer],
    ),
    seed(
        "suspend",
        0x10,
        false,
        &[Step::Bind, SUSPEND, RESTORE, RESUME, NOTIFY],
    ),
    seed(
        "suspend-fails",
        0x10,
        false,
        &[Step::Bind, SLOW, SUSPEND, Step::FailToSuspendOrResume],
    ),
    seed(
        "restore-parked",
        0,
        false,
        &[
            Step::Bind,
            Step::PlatformSleep,
            RESET,
            RESTORE,
            Step::PlatformWake,
        ],
    ),
    seed(
        "restore-resetting",
        0,
        true,
        &[
            Step::Bind,
            Step::PlatformSleep,
            SLOW,
            RESET,
            RESTORE,
            Step::Answer,
        ],
    ),
    seed(
        "restore-lost",
        0,
        false,
        &[Step::Bind, FREEZE, LOST, Step::Bind],
    ),
    seed(
        "reboot",
        0,
        false,
        &[
            Step::Bind,
            FREEZE,
            SLOW,
            RESET,
            Step::Reboot,
            Step::Answer,
            Step::Answer,
        ],
    ),
    seed("error", 0, false, &[Step::Bind, Step::NeedsReset, CHANGE]),
    // Found by the fuzzer: a suspended device with a change to come, lost in a restore, could not be saved again.
    seed(
        "restore-lost-suspended",
        0x10,
        false,
        &[Step::Bind, SUSPEND, CHANGE, LOST, RESTORE],
    ),
    // Found by the fuzzer: likewise while the reset of such a device is under way.
    seed(
        "restore-suspended-resetting",
        0x10,
        false,
        &[
            Step::Bind,
            SUSPEND,
            CHANGE,
            SLOW,
            RESET,
            RESTORE,
            Step::Answer,
        ],
    ),
    seed("tail", 1, true, &NO_HOOKS),
    seed("retention-off", 6, false, &NO_HOOKS),
    seed("no-power-management", 0x20, true, &NO_HOOKS),
];

impl Seed {
    fn program(&self) -> Program {
        Program {
            setup: self.setup,
            steps: self.steps.to_vec(),
        }
    }
}

fn directory(target: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../fuzz/seeds").join(target)
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let path = directory(target).join(name);
    if env::var_os("UPDATE_SEEDS").is_some() {
        fs::write(&path, bytes).expect("written");
    }
    let kept = fs::read(&path).expect("a kept seed");
    assert_eq!(kept, bytes, "{target} {name}; renew with UPDATE_SEEDS=1");
}

#[test]
fn the_kept_programs_lead_where_they_should() {
    for seed in SEEDS.iter().step_by(STRIDE.min(4)) {
        let (name, program) = (seed.name, seed.program());
        keep("common_config", name, &program.encode());
        let machine = program.run();
        let counters = machine.function.transport().counters();
        assert_eq!(
            counters.frozen_resets > 0,
            seed.frozen,
            "{name} {counters:?}"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes, in the parser of the files")]
fn the_kept_saved_states_are_accepted_as_they_are() {
    for seed in SEEDS {
        let (name, program) = (seed.name, seed.program().encode());
        let unchanged = [&[0][..], &program].concat();
        keep("saved_state", name, &unchanged);
        assert!(restore_and_go_on(&unchanged), "{name}");
        let changed = [&[1][..], &[0; 10], &program].concat();
        keep("saved_state", &format!("{name}-changed"), &changed);
        restore_and_go_on(&changed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(512), failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_saved_state_with_fields_changed_is_refused_or_sound(
        which in 0..SEEDS.len(),
        count: u8,
        patches in prop::collection::vec(any::<u8>(), 80),
    ) {
        let patches = &patches[..usize::from(count % 8) * 10];
        let program = SEEDS[which].program().encode();
        restore_and_go_on(&[&[count], patches, &program].concat());
    }
}
