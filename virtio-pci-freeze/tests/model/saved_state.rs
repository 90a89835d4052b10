// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Saved states: kept files, round trips, and states that nobody saved.

use std::env;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use virtio_pci_freeze::saved_state::{
    FUNCTION_KIND, SavedFound, SavedHeader, SavedHold, SavedLifecycle, VERSION,
};
use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, feature};
use virtio_pci_freeze::test_utils::{Driver, Machine, SleepPath, check_invariants, retention};
use virtio_pci_freeze::{
    ActivationKind, Effect, FreezeState, FunctionConfig, HoldSources, Layout,
    RELEASE_AFTER_NOTIFICATIONS, Register, RestoreError, RestoredDevice, Retention, SavedFunction,
    Transport, VirtioPciFunction,
};

use crate::common::{RESOURCE, activations, bus_master, config, keeps_resources, resets, running};

fn base() -> FunctionConfig {
    config(retention(false))
}

type Change = fn(&mut Machine, &mut Driver);

/// Machines in every kind of state that can be saved.
pub(crate) fn machines() -> Vec<(&'static str, Machine, Driver)> {
    let (machine, driver) = running(base());
    let from = |change: Change| {
        let (mut machine, mut driver) = (machine.clone(), driver.clone());
        machine.use_buffers(0, 7);
        change(&mut machine, &mut driver);
        (machine, driver)
    };
    let changes: [(&'static str, Change); 9] = [
        ("running", |_, _| {}),
        ("asleep", |machine, driver| {
            driver.write_freeze_mode(machine, FreezeModeValue::FREEZE_S3);
            driver.suspend(machine, SleepPath::NoHooks);
            machine.use_buffers(1, 2);
            let effects = machine.function.update_device_config(0, &[1]);
            machine.carry_out(effects);
        }),
        ("parked", |machine, driver| {
            driver.write_freeze_mode(machine, FreezeModeValue::FREEZE_S3);
            driver.reset(machine);
        }),
        ("freezing", |machine, driver| {
            machine.device.answers = false;
            driver.write_freeze_mode(machine, FreezeModeValue::FREEZE_S3);
        }),
        ("suspended", |machine, driver| {
            driver.set_status(machine, DeviceStatus::SUSPEND);
            let effects = machine.function.update_device_config(0, &[9, 9]);
            machine.carry_out(effects);
        }),
        ("resetting", |machine, driver| {
            machine.function.platform_sleep();
            machine.device.answers = false;
            driver.write(machine, Register::DeviceStatus, 0);
        }),
        ("dropping-parked", |machine, driver| {
            driver.write_freeze_mode(machine, FreezeModeValue::FREEZE_S3);
            driver.reset(machine);
            machine.device.answers = false;
            driver.write_freeze_mode(machine, FreezeModeValue::UNFREEZE);
            driver.write(machine, Register::DeviceStatus, 0);
        }),
        ("suspending", |machine, driver| {
            machine.device.answers = false;
            driver.set_status(machine, DeviceStatus::SUSPEND);
        }),
        ("resuming", |machine, driver| {
            driver.set_status(machine, DeviceStatus::SUSPEND);
            machine.device.answers = false;
            driver.set_status(machine, DeviceStatus::DRIVER_OK);
        }),
    ];
    let mut machines = vec![("fresh", Machine::new(base()), driver.clone())];
    for (name, change) in changes {
        let (machine, driver) = from(change);
        machines.push((name, machine, driver));
    }
    machines
}

fn save(machine: &Machine) -> SavedFunction {
    machine.function.save(&machine.device.positions)
}

/// A machine in another process, with the device's state in it or not.
fn restore(machine: &Machine, device: RestoredDevice) -> Machine {
    let (function, effects) =
        VirtioPciFunction::restore(base(), &save(machine), device).expect("restored");
    let mut restored = Machine::with_function(function);
    restored.device.answers = machine.device.answers;
    if device == RestoredDevice::Intact {
        restored
            .device
            .resources
            .clone_from(&machine.device.resources);
    }
    restored.carry_out(effects);
    restored
}

fn golden(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    directory.join(format!("tests/golden/function-v{VERSION}-{name}.json"))
}

#[test]
fn every_kept_file_is_what_is_saved_today_and_can_be_restored() {
    for (name, machine, _) in machines() {
        let path = golden(name);
        let saved = serde_json::to_string_pretty(&save(&machine)).expect("JSON") + "\n";
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &saved).expect("written");
        }
        let kept = fs::read_to_string(&path).expect("a kept file");
        assert_eq!(kept, saved, "{name}");
        let parsed: SavedFunction = serde_json::from_str(&kept).expect("parsed");
        let restored = VirtioPciFunction::restore(base(), &parsed, RestoredDevice::Intact);
        assert!(restored.is_ok(), "{name}: {restored:?}");
    }
}

#[test]
fn save_restore_save_is_stable() {
    for (name, machine, _) in machines() {
        let saved = save(&machine);
        let mut restored = restore(&machine, RestoredDevice::Intact);
        restored
            .device
            .positions
            .clone_from(&machine.device.positions);
        assert_eq!(save(&restored), saved, "{name}");
        check_invariants(&mut restored);
    }
}

/// Of a driver that slept, or of one that is gone: the next one to negotiate finds what is its own, or nothing.
#[test]
fn a_drivers_own_reset_is_in_another_process_what_it_was() {
    for slept in [false, true] {
        let retention = Retention::On {
            sources: HoldSources::ALL,
            no_soft_reset: false,
        };
        let (mut machine, mut driver) = running(config(retention));
        driver.reset(&mut machine);
        if slept {
            bus_master(&mut driver, &mut machine, false);
            bus_master(&mut driver, &mut machine, true);
        }
        let intact = RestoredDevice::Intact;
        let restored = VirtioPciFunction::restore(config(retention), &save(&machine), intact);
        let (function, effects) = restored.expect("restored");
        let mut restored = Machine::with_function(function);
        (restored.device.resources).clone_from(&machine.device.resources);
        restored.carry_out(effects);
        for machine in [&mut machine, &mut restored] {
            assert!(keeps_resources(machine));
            driver.set_status(machine, DeviceStatus::ACKNOWLEDGE);
            assert_eq!(keeps_resources(machine), slept);
        }
    }
}

#[test]
fn a_running_device_goes_on_where_it_was() {
    let (_, machine, _) = machines().swap_remove(1);
    let mut restored = restore(&machine, RestoredDevice::Intact);
    let log = restored.take_log();
    let reinstated = Effect::Activate(ActivationKind::Reinstated);
    assert_eq!(log[..2], [reinstated, Effect::Kick]);
    assert_eq!(restored.device.positions[0].next_used, 7);
    let before: Vec<_> = machine.function.transport().active_queues().collect();
    for (now, before) in restored.function.transport().active_queues().zip(before) {
        assert_eq!(
            (now.desc, now.vector, now.size),
            (before.desc, before.vector, before.size)
        );
    }
}

#[test]
fn a_guest_that_sleeps_through_a_migration_wakes_with_its_display() {
    let (_, machine, mut driver) = machines().swap_remove(2);
    let mut restored = restore(&machine, RestoredDevice::Intact);
    restored.take_log();
    driver.resume(&mut restored, SleepPath::NoHooks);
    assert!(keeps_resources(&restored));
    assert_eq!(activations(&mut restored), [ActivationKind::Reinstated]);
    let sent = restored.take_interrupts();
    assert!(sent.contains(&0), "the change during sleep: {sent:?}");
    let frozen = FreezeModeValue::FREEZE_S3;
    assert_eq!(driver.freeze_mode(&mut restored), frozen);
}

#[test]
fn parked_queues_are_reinstated_in_another_process() {
    let (_, machine, mut driver) = machines().swap_remove(3);
    let mut restored = restore(&machine, RestoredDevice::Intact);
    driver.negotiate(&mut restored);
    driver.set_status(&mut restored, DeviceStatus::DRIVER_OK);
    assert_eq!(activations(&mut restored), [ActivationKind::Reinstated]);
    assert_eq!(restored.device.positions[0].next_avail, 7);
}

fn asks(name: &str, effect: &Effect) -> bool {
    match effect {
        Effect::Freeze { .. } => name == "freezing",
        Effect::Suspend => name == "suspending",
        Effect::Resume => name == "resuming",
        _ => false,
    }
}

#[test]
fn what_the_device_had_not_answered_is_asked_again() {
    for name in ["freezing", "suspending", "resuming"] {
        let all = machines();
        let (_, machine, _) = all.iter().find(|(n, ..)| *n == name).expect("listed");
        let mut restored = restore(machine, RestoredDevice::Intact);
        assert!(
            restored.take_log().iter().any(|effect| asks(name, effect)),
            "{name}"
        );
        assert!(restored.answer_next());
        check_invariants(&mut restored);
    }
    for name in ["resetting", "dropping-parked"] {
        let all = machines();
        let (_, machine, _) = all.iter().find(|(n, ..)| *n == name).expect("listed");
        let mut restored = restore(machine, RestoredDevice::Intact);
        assert_eq!(resets(&mut restored).len(), 1, "{name}");
        assert!(restored.answer_next());
        assert_eq!(restored.function.transport().status().0, 0);
        assert_eq!(keeps_resources(&restored), name == "resetting");
    }
}

#[test]
fn a_lost_device_needs_a_reset_and_nothing_is_retained() {
    for (name, machine, mut driver) in machines() {
        let mut restored = restore(&machine, RestoredDevice::Lost);
        check_invariants(&mut restored);
        let transport = restored.function.transport();
        assert!(!transport.is_held(), "{name}");
        assert_eq!(transport.freeze_state(), FreezeState::Unfrozen, "{name}");
        assert!(transport.parked_queues().is_none(), "{name}");
        let live = machine.function.transport().is_live();
        let needs_reset = transport
            .status()
            .contains(DeviceStatus::DEVICE_NEEDS_RESET);
        assert_eq!(needs_reset, live, "{name}");
        restored.device.answers = true;
        restored.device.resources.insert(RESOURCE);
        driver.set_power_state(&mut restored, 0);
        driver.write_command(&mut restored, 6);
        driver.bind(&mut restored);
        assert_eq!(driver.status(&mut restored), 0xf, "{name}");
        assert_eq!(keeps_resources(&restored), !live, "{name}");
    }
}

#[test]
fn a_running_guest_is_told_that_its_device_is_lost() {
    let (_, machine, _) = machines().swap_remove(1);
    let mut restored = restore(&machine, RestoredDevice::Lost);
    assert_eq!(restored.take_interrupts(), [0]);
}

#[test]
fn another_kind_and_another_version_are_refused_by_name() {
    let (mut machine, _) = running(base());
    let mut saved = save(&machine);
    saved.header.version = 2;
    let restore = |saved: &SavedFunction| {
        VirtioPciFunction::restore(base(), saved, RestoredDevice::Intact).map(drop)
    };
    let error = restore(&saved).expect_err("refused");
    let text = error.to_string();
    assert!(
        text.contains("version 2") && text.contains(FUNCTION_KIND),
        "{text}"
    );
    saved.header.version = VERSION;
    saved.header.kind = "x".repeat(1000);
    let error = restore(&saved).expect_err("refused");
    let RestoreError::UnknownKind { found, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(
        found.len(),
        64,
        "an error does not repeat all that a file says"
    );
    let mut saved = save(&machine);
    saved.transport.header.version = 0;
    assert!(matches!(
        restore(&saved),
        Err(RestoreError::UnknownVersion { found: 0, .. })
    ));
    machine.take_log();
}

#[test]
fn the_header_of_a_version_to_come_can_be_read() {
    let text = r#"{"kind": "virtio-pci-freeze/function", "version": 7, "something": {"new": 1}}"#;
    let header: SavedHeader = serde_json::from_str(text).expect("a header");
    let error = header.check(FUNCTION_KIND).expect_err("refused");
    assert!(matches!(
        error,
        RestoreError::UnknownVersion { found: 7, .. }
    ));
    assert!(serde_json::from_str::<SavedFunction>(text).is_err());
}

#[test]
fn a_state_goes_only_into_a_device_like_the_one_that_was_saved() {
    let (machine, _) = running(base());
    let saved = save(&machine);
    let refused = |change: fn(&mut FunctionConfig)| {
        let mut config = base();
        change(&mut config);
        VirtioPciFunction::restore(config, &saved, RestoredDevice::Intact)
            .map(drop)
            .expect_err("refused")
            .to_string()
    };
    for (change, word) in [
        (
            (|c| c.transport.queue_sizes = vec![64]) as fn(&mut FunctionConfig),
            "queues",
        ),
        (|c| c.transport.queue_sizes = vec![64, 32], "queues"),
        (|c| c.transport.vectors = 4, "vectors"),
        (|c| c.transport.device_config = vec![0; 3], "configuration"),
        (|c| c.transport.layout = Layout::Tail, "layout"),
        (|c| c.transport.device_features = 0, "feature"),
        (|c| c.transport.vectors = 0, "MSI-X"),
    ] {
        let text = refused(change);
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_state_that_holds_goes_into_no_device_with_retention_off() {
    let mut off = base();
    off.transport.layout = Layout::None;
    let mut plain = off.clone();
    off.transport.retention = Retention::Off;
    plain.transport.retention = retention(false);
    let (mut machine, mut driver) = running(plain);
    let saved = save(&machine);
    let restore = |saved: &SavedFunction| {
        VirtioPciFunction::restore(off.clone(), saved, RestoredDevice::Intact).map(drop)
    };
    assert_eq!(restore(&saved), Ok(()));
    machine.function.platform_sleep();
    assert!(matches!(
        restore(&save(&machine)),
        Err(RestoreError::Invalid { .. })
    ));
    driver.reset(&mut machine);
    machine.function.platform_wake();
    let mut parked = save(&machine);
    parked.transport.holds = Default::default();
    assert!(matches!(
        restore(&parked),
        Err(RestoreError::Invalid { .. })
    ));
}

/// What is wrong with a state, and a change that makes it so.
type Damage = (&'static str, &'static str, fn(&mut SavedFunction));

const DAMAGES: [Damage; 27] = [
    ("running", "device status", |s| s.transport.status |= 0x20),
    ("running", "device status", |s| s.transport.status = 0x0b),
    ("running", "device status", |s| s.transport.status = 0x04),
    ("running", "device status", |s| s.transport.status = 0x1f),
    ("running", "device status", |s| {
        s.transport.lifecycle = SavedLifecycle::Clean;
    }),
    ("running", "device status", |s| {
        s.transport.lifecycle = SavedLifecycle::Suspended;
    }),
    ("suspended", "device status", |s| {
        s.transport.driver_features &= !feature::mask(feature::VIRTIO_F_SUSPEND);
    }),
    ("fresh", "device status", |s| {
        s.transport.lifecycle = SavedLifecycle::Resetting {
            frozen: true,
            found: SavedFound::Live,
        };
    }),
    ("fresh", "reset", |s| {
        let found = SavedFound::Retained { parked: None };
        s.transport.lifecycle = SavedLifecycle::Resetting {
            frozen: true,
            found,
        };
    }),
    ("running", "feature set", |s| {
        s.transport.driver_features |= 1 << 50;
    }),
    ("running", "vector of configuration", |s| {
        s.transport.config_msix_vector = 3;
    }),
    ("running", "size of queue 1", |s| {
        s.transport.queues[1].size = 17;
    }),
    ("running", "vector of queue 0", |s| {
        s.transport.queues[0].msix_vector = 9;
    }),
    ("running", "set-up of queue 0", |s| {
        s.transport.queues[0].desc = 1;
    }),
    ("fresh", "set-up of queue 1", |s| {
        s.transport.queues[1].enabled = true;
    }),
    ("running", "deferred", |s| {
        s.transport.device_config.deferred = Some(vec![0; 16]);
    }),
    ("suspended", "length", |s| {
        s.transport.device_config.deferred = Some(vec![0; 17]);
    }),
    ("parked", "feature set of the parked", |s| {
        parked(s).features = 0;
    }),
    ("parked", "vector of the parked", |s| {
        parked(s).config_vector = 3;
    }),
    ("parked", "list of parked", |s| parked(s).queues.clear()),
    ("parked", "list of parked", |s| parked(s).queues.reverse()),
    ("parked", "set-up of queue 2", |s| {
        parked(s).queues[1].index = 2;
    }),
    ("parked", "set-up of queue 0", |s| {
        parked(s).queues[0].size = 128;
    }),
    ("parked", "set-up of queue 1", |s| {
        parked(s).queues[1].vector = 4;
    }),
    ("running", "bus state", |s| s.transport.bus_master = false),
    ("running", "ISR", |s| s.isr = 4),
    ("running", "configuration space", |s| {
        s.config_space.bars[0] |= 0x100;
    }),
];

fn parked(saved: &mut SavedFunction) -> &mut virtio_pci_freeze::ParkedQueues {
    match &mut saved.transport.lifecycle {
        SavedLifecycle::Retained {
            parked: Some(parked),
        } => parked,
        other => panic!("nothing parked in {other:?}"),
    }
}

#[test]
fn a_state_that_contradicts_itself_is_refused_by_what_is_wrong() {
    let machines = machines();
    for (name, word, damage) in DAMAGES {
        let (_, machine, _) = machines.iter().find(|(n, ..)| *n == name).expect("listed");
        let mut saved = save(machine);
        damage(&mut saved);
        let restored = VirtioPciFunction::restore(base(), &saved, RestoredDevice::Intact);
        let text = restored.map(drop).expect_err(word).to_string();
        assert!(text.contains(word), "{name}: {text}, not {word}");
    }
}

#[test]
fn a_frozen_state_goes_into_no_layout_without_the_register() {
    let mut config = base();
    config.transport.layout = Layout::None;
    let (machine, _) = running(config.clone());
    let mut saved = save(&machine);
    saved.transport.freeze = FreezeState::Frozen;
    let restored = VirtioPciFunction::restore(config, &saved, RestoredDevice::Intact);
    let text = restored.map(drop).expect_err("refused").to_string();
    assert!(text.contains("freeze_mode"), "{text}");
}

#[test]
fn a_hold_that_ought_to_be_over_is_over() {
    let (machine, _) = running(base());
    let mut saved = save(&machine);
    let last = RELEASE_AFTER_NOTIFICATIONS - 1;
    for (doorbells, held) in [(last, true), (last + 1, false), (u16::MAX, false)] {
        saved.transport.holds.d3hot = SavedHold::Lingering(doorbells);
        let (function, _) =
            VirtioPciFunction::restore(base(), &saved, RestoredDevice::Intact).expect("restored");
        assert_eq!(function.transport().is_held(), held, "{doorbells}");
    }
}

#[test]
fn a_transport_is_saved_and_restored_alone() {
    let (_, machine, _) = machines().swap_remove(1);
    let transport = machine.function.transport();
    let saved = transport.save(&machine.device.positions);
    let json = serde_json::to_string(&saved).expect("JSON");
    let parsed = serde_json::from_str(&json).expect("parsed");
    assert_eq!(saved, parsed);
    let (restored, effects) =
        Transport::restore(base().transport, &parsed, RestoredDevice::Intact).expect("restored");
    assert_eq!(restored.save(&[]), saved);
    assert_eq!(effects.iter().count(), 2);
}

#[test]
fn numbers_out_of_range_and_unknown_words_do_not_parse() {
    let (_, machine, _) = machines().swap_remove(3);
    let good = serde_json::to_value(save(&machine)).expect("JSON");
    let set = |path: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(path).expect("a field") = value;
        serde_json::from_value::<SavedFunction>(json)
    };
    assert!(set("/isr", 256.into()).is_err());
    assert!(set("/transport/status", (-1).into()).is_err());
    assert!(set("/transport/lifecycle", "asleep".into()).is_err());
    assert!(set("/transport/layout", "head".into()).is_err());
    assert!(set("/vectors/0/pending", 1.into()).is_err());
    let extra = serde_json::json!({"bytes": [], "generation": 0, "changed": false, "x": 1});
    assert!(set("/transport/device_config", extra).is_err());
    assert!(set("/isr", 0.into()).is_ok());
}

#[test]
fn a_queue_that_is_being_reset_is_saved_as_one_that_was() {
    let mut config = base();
    config.transport.layout = Layout::None;
    config.transport.device_features |= feature::mask(feature::VIRTIO_F_RING_RESET);
    let (mut machine, mut driver) = running(config.clone());
    machine.device.answers = false;
    driver.write(&mut machine, Register::QueueSelect, 1);
    driver.write(&mut machine, Register::QueueReset, 1);
    let saved = save(&machine);
    let (function, _) =
        VirtioPciFunction::restore(config, &saved, RestoredDevice::Intact).expect("restored");
    let mut restored = Machine::with_function(function);
    assert_eq!(driver.read(&mut restored, Register::QueueReset), 0);
    assert_eq!(driver.read(&mut restored, Register::QueueEnable), 0);
    assert_eq!(restored.function.transport().active_queues().count(), 1);
}
