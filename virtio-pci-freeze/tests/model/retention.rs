// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a reset keeps and what it drops, seen through the sequences of real drivers.

use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath, retention};
use virtio_pci_freeze::{
    ActivationKind, Effect, HoldReason, HoldSources, RELEASE_AFTER_NOTIFICATIONS, Register,
    ResetKind, Retention, RingPosition,
};

use crate::common::{
    RESOURCE, SLEEPS, STRIDE, activations, bus_master, config, keeps_resources, only,
    rebind_without_queues, resets, running,
};

#[test]
fn a_reset_without_a_hold_destroys_every_resource() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.reset(&mut machine);
    assert!(!keeps_resources(&machine));
    assert_eq!(resets(&mut machine), [ResetKind::Full]);
}

#[test]
fn with_retention_off_no_hint_holds() {
    let (mut machine, mut driver) = running(config(Retention::Off));
    machine.function.platform_sleep();
    driver.suspend(&mut machine, SleepPath::NoHooks);
    assert!(!machine.function.transport().is_held());
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(!keeps_resources(&machine));
}

#[test]
fn with_retention_off_a_suspended_device_is_reset_by_a_function_reset() {
    let (mut machine, mut driver) = running(config(Retention::Off));
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    machine.function_reset();
    assert!(!keeps_resources(&machine));
}

#[test]
fn d3hot_alone_holds_across_the_reset_of_a_driver_without_hooks() {
    let (mut machine, mut driver) = only(HoldSources {
        d3hot: true,
        ..HoldSources::NONE
    });
    driver.suspend(&mut machine, SleepPath::NoHooks);
    let holds: Vec<_> = machine.function.transport().holds().collect();
    assert_eq!(holds, [HoldReason::D3hot]);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
    assert_eq!(machine.function.transport().holds().count(), 0);
}

#[test]
fn bus_master_off_alone_holds_when_a_suspend_never_reaches_d3() {
    let mut config = config(Retention::On {
        sources: HoldSources {
            bus_master_off: true,
            ..HoldSources::NONE
        },
        no_soft_reset: false,
    });
    config.power_management = false;
    let (mut machine, mut driver) = running(config);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    let holds: Vec<_> = machine.function.transport().holds().collect();
    assert_eq!(holds, [HoldReason::BusMasterOff]);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
}

#[test]
fn platform_sleep_alone_holds_until_the_driver_is_back() {
    let (mut machine, mut driver) = only(HoldSources::NONE);
    machine.function.platform_sleep();
    machine.function.platform_wake();
    assert!(machine.function.transport().is_held());
    rebind_without_queues(&mut driver, &mut machine);
    assert!(keeps_resources(&machine));
    assert!(!machine.function.transport().is_held());
}

#[test]
fn without_its_hint_a_function_reset_is_a_full_one() {
    let (mut machine, _) = only(HoldSources::NONE);
    machine.function_reset();
    assert!(!keeps_resources(&machine));
    assert_eq!(machine.function.transport().status().0, 0);
}

#[test]
fn every_combination_of_hints_keeps_the_display_on_every_path_with_and_without_a_function_reset() {
    for hints in (0..16u8).rev().step_by(STRIDE.min(16)) {
        let sources = HoldSources {
            d3hot: hints & 1 != 0,
            bus_master_off: hints & 2 != 0,
            function_reset: hints & 4 != 0,
            same_driver: hints & 8 != 0,
        };
        for (platform, freezes) in [(false, true), (true, false), (true, true), (false, false)] {
            for (path, no_soft_reset) in [
                (SleepPath::NoHooks, false),
                (SleepPath::NoHooks, true),
                (SleepPath::Hooks, false),
                (SleepPath::NoReset, true),
            ] {
                let (mut machine, mut driver) = running(config(Retention::On {
                    sources,
                    no_soft_reset,
                }));
                if freezes {
                    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
                }
                driver.suspend(&mut machine, path);
                if platform {
                    machine.function.platform_sleep();
                }
                if sources.function_reset {
                    machine.function_reset();
                }
                if platform {
                    machine.function.platform_wake();
                }
                driver.resume(&mut machine, path);
                let by_bus_master = sources.bus_master_off && path != SleepPath::NoReset;
                let told = freezes
                    || platform
                    || sources.d3hot
                    || by_bus_master
                    || sources.same_driver
                    || sources.function_reset
                    || path == SleepPath::NoReset;
                let case = format!("{sources:?} {platform} {freezes} {path:?} {no_soft_reset}");
                assert_eq!(keeps_resources(&machine), told, "{case}");
                assert_eq!(
                    driver.status(&mut machine) & 0xf,
                    expected_status(path, sources, platform),
                    "{case}"
                );
            }
        }
    }
}

/// Whether a device that was frozen by a function reset runs again depends on the driver's path: one that touches no
/// register finds status 0 where nothing told the device that it sleeps.
fn expected_status(path: SleepPath, sources: HoldSources, platform: bool) -> u8 {
    let kept = sources.d3hot || platform || !sources.function_reset;
    if path == SleepPath::NoReset && !kept {
        0
    } else {
        0xf
    }
}

#[test]
fn a_frozen_reset_reads_as_a_reset_and_parks_the_queues() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.use_buffers(1, 5);
    let before: Vec<_> = machine.function.transport().active_queues().collect();
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.reset(&mut machine);
    for queue in 0..2 {
        driver.write(&mut machine, Register::QueueSelect, queue);
        for (register, value) in [
            (Register::QueueEnable, 0),
            (Register::QueueDesc, 0),
            (Register::QueueDriver, 0),
            (Register::QueueDevice, 0),
            (Register::QueueMsixVector, 0xffff),
        ] {
            assert_eq!(driver.read(&mut machine, register), value, "{register:?}");
        }
    }
    assert_eq!(driver.read(&mut machine, Register::DriverFeature), 0);
    assert_eq!(
        driver.read(&mut machine, Register::ConfigMsixVector),
        0xffff
    );
    let parked = machine.function.transport().parked_queues().cloned();
    let parked = parked.expect("parked queues");
    assert_eq!(parked.config_vector, 0);
    assert_eq!(parked.queues.len(), 2);
    for (parked, live) in parked.queues.iter().zip(&before) {
        let position = machine.device.positions[usize::from(live.index)];
        let mut live = *live;
        live.position = position;
        assert_eq!(*parked, live);
    }
    assert_eq!(parked.queues[1].position.next_avail, 5);
}

#[test]
fn reinstatement_brings_back_vectors_addresses_and_positions() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.use_buffers(0, 9);
    let mut before: Vec<_> = machine.function.transport().active_queues().collect();
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.resume(&mut machine, SleepPath::NoHooks);
    before[0].position = RingPosition {
        next_avail: 9,
        next_used: 9,
    };
    let after: Vec<_> = machine.function.transport().active_queues().collect();
    assert_eq!(after, before);
    assert_eq!(driver.read(&mut machine, Register::ConfigMsixVector), 0);
    assert_eq!(machine.function.transport().counters().reinstatements, 1);
}

#[test]
fn a_driver_that_sets_up_queues_gets_its_own_and_keeps_the_device_state() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::Hooks);
    driver.resume(&mut machine, SleepPath::Hooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Retained]);
    let positions: Vec<_> = machine
        .function
        .transport()
        .active_queues()
        .map(|queue| queue.position)
        .collect();
    assert_eq!(positions, [RingPosition::default(); 2]);
}

#[test]
fn queues_come_back_only_under_the_same_features() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.features &= !1 & !2;
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert_eq!(activations(&mut machine), [ActivationKind::Retained]);
    assert!(keeps_resources(&machine));
    assert_eq!(machine.function.transport().active_queues().count(), 0);
    let counters = machine.function.transport().counters();
    assert_eq!(counters.reinstatements_refused, 1);
}

#[test]
fn a_fresh_driver_with_no_queue_has_nothing_to_reinstate() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    rebind_without_queues(&mut driver, &mut machine);
    assert_eq!(activations(&mut machine), [ActivationKind::Fresh]);
    assert_eq!(machine.function.transport().active_queues().count(), 0);
}

#[test]
fn a_doorbell_between_bus_master_on_and_status_0_does_not_cost_the_display() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.set_power_state(&mut machine, 0);
    bus_master(&mut driver, &mut machine, true);
    for _ in 1..RELEASE_AFTER_NOTIFICATIONS {
        driver.notify(&mut machine, 0);
    }
    rebind_without_queues(&mut driver, &mut machine);
    assert!(keeps_resources(&machine));
}

#[test]
fn a_wake_that_brings_no_reset_is_over_once_the_driver_works_again() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.suspend(&mut machine, SleepPath::NoReset);
    driver.resume(&mut machine, SleepPath::NoReset);
    assert!(machine.function.transport().is_held());
    for _ in 0..RELEASE_AFTER_NOTIFICATIONS {
        driver.notify(&mut machine, 0);
    }
    assert!(!machine.function.transport().is_held());
    driver.reset(&mut machine);
    assert!(
        !keeps_resources(&machine),
        "an unbind after that is a reset"
    );
}

#[test]
fn doorbells_of_a_sleeping_function_do_not_end_its_hold() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.function.platform_sleep();
    for _ in 0..RELEASE_AFTER_NOTIFICATIONS {
        driver.notify(&mut machine, 0);
    }
    assert!(machine.function.transport().is_held());
}

#[test]
fn driver_ok_does_not_end_a_hold_whose_cause_stands() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.function.platform_sleep();
    rebind_without_queues(&mut driver, &mut machine);
    assert!(machine.function.transport().is_held());
    rebind_without_queues(&mut driver, &mut machine);
    assert!(keeps_resources(&machine));
}

#[test]
fn a_lost_doorbell_is_made_up_for_at_reinstatement_and_at_bus_master_on() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    machine.take_log();
    driver.notify(&mut machine, 0);
    assert_eq!(machine.take_log(), [], "the doorbell is lost in D3hot");
    driver.resume(&mut machine, SleepPath::NoHooks);
    let log = machine.take_log();
    let kicks = log.iter().filter(|effect| **effect == Effect::Kick).count();
    assert_eq!(kicks, 2, "{log:?}");
}

#[test]
fn a_command_already_in_the_ring_at_driver_ok_is_found() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.bind(&mut machine);
    let log = machine.take_log();
    let started = log.iter().position(|e| matches!(e, Effect::Activate(_)));
    let kicked = log.iter().position(|e| *e == Effect::Kick);
    assert!(started.is_some() && started < kicked, "{log:?}");
}

#[test]
fn a_device_that_may_not_master_the_bus_is_kicked_once_it_may() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    bus_master(&mut driver, &mut machine, false);
    driver.bind(&mut machine);
    assert!(!machine.take_log().contains(&Effect::Kick));
    assert!(!machine.function.transport().may_access_memory());
    bus_master(&mut driver, &mut machine, true);
    assert!(machine.take_log().contains(&Effect::Kick));
}

#[test]
fn losing_the_bus_pauses_the_device_before_the_write_returns() {
    let (mut machine, mut driver) = running(config(retention(false)));
    bus_master(&mut driver, &mut machine, false);
    assert_eq!(machine.take_log(), [Effect::Pause]);
    bus_master(&mut driver, &mut machine, true);
    machine.take_log();
    driver.set_power_state(&mut machine, pci::PMCSR_POWER_STATE);
    assert_eq!(machine.take_log(), [Effect::Pause]);
}

#[test]
fn with_no_soft_reset_a_function_reset_of_a_sleeping_function_keeps_status_and_queues() {
    let (mut machine, mut driver) = running(config(retention(true)));
    let before: Vec<_> = machine.function.transport().active_queues().collect();
    driver.suspend(&mut machine, SleepPath::NoReset);
    driver.set_power_state(&mut machine, 0);
    machine.function_reset();
    assert_eq!(machine.function.transport().status().0, 0xf);
    driver.resume(&mut machine, SleepPath::NoReset);
    assert_eq!(resets(&mut machine), []);
    let after: Vec<_> = machine.function.transport().active_queues().collect();
    assert_eq!(after, before);
}

#[test]
fn with_no_soft_reset_a_driver_that_resets_all_the_same_gets_its_queues_back() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.set_power_state(&mut machine, 0);
    machine.function_reset();
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
}

#[test]
fn a_suspended_device_keeps_its_state_across_a_function_reset_only() {
    let (mut machine, mut driver) = only(HoldSources::NONE);
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    let transport = machine.function.transport();
    assert_eq!(
        transport.holds().collect::<Vec<_>>(),
        [HoldReason::Suspended]
    );
    machine.function_reset();
    assert!(keeps_resources(&machine));
    assert_eq!(machine.function.transport().status().0, 0);

    let (mut machine, mut driver) = only(HoldSources::NONE);
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    driver.reset(&mut machine);
    assert!(
        !keeps_resources(&machine),
        "by the standard status 0 means a reset"
    );
}

#[test]
fn with_no_soft_reset_a_suspended_device_stays_suspended_across_a_function_reset() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    let suspended = machine.function.transport().status();
    machine.function_reset();
    assert_eq!(machine.function.transport().status(), suspended);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    assert_eq!(driver.status(&mut machine), 0xf);
}

#[test]
fn eight_sleeps_in_a_row_keep_the_display() {
    for (path, no_soft_reset) in [
        (SleepPath::NoHooks, false),
        (SleepPath::Hooks, false),
        (SleepPath::NoReset, true),
    ] {
        let (mut machine, mut driver) = running(config(retention(no_soft_reset)));
        for cycle in 0..SLEEPS {
            machine.use_buffers(0, cycle);
            driver.suspend(&mut machine, path);
            driver.notify(&mut machine, 0);
            driver.set_power_state(&mut machine, 0);
            machine.function_reset();
            driver.resume(&mut machine, path);
            assert!(keeps_resources(&machine), "{path:?} {cycle}");
            assert_eq!(driver.status(&mut machine), 0xf, "{path:?} {cycle}");
            assert_eq!(machine.function.transport().active_queues().count(), 2);
        }
    }
}

#[test]
fn the_same_sleep_works_through_the_configuration_access_window() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Window);
    driver.bind(&mut machine);
    machine.device.resources.insert(RESOURCE);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    let frozen = FreezeModeValue::FREEZE_S3;
    assert_eq!(driver.freeze_mode(&mut machine), frozen);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    machine.take_log();
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
    driver.notify(&mut machine, 1);
    assert_eq!(machine.take_log(), [Effect::Notify { queue: 1, data: 1 }]);
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let names: Vec<_> = HoldReason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "freeze-mode",
            "d3hot",
            "bus-master-off",
            "platform-sleep",
            "function-reset",
            "same-driver",
            "suspended"
        ]
    );
}
