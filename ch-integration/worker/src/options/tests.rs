// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar.

mod reference;
mod round_trip;

use serde::{Deserialize, Serialize};
use virtio_gpu_s3::protocol::wire::RespEdid;
use virtio_gpu_s3_testing::{GpuDriver, request};

use super::*;

#[test]
fn every_key_is_read() {
    let option: GpuOption =
        "backend=2d,venus=off,outputs=2,refresh=75,width=640,height=480,max_contexts=5,max_submit_bytes=2M"
            .parse()
            .unwrap();
    let size = OutputSize {
        width: 640,
        height: 480,
    };
    let expected = GpuOption {
        backend: Backend::TwoD,
        venus: false,
        outputs: 2,
        refresh: 75,
        size,
        hostmem: None,
        wayland: None,
        limits: [
            ("max_contexts".into(), 5),
            ("max_submit_bytes".into(), 2 << 20),
        ]
        .into(),
    };
    assert_eq!(option, expected);
    assert_eq!("".parse(), Ok(GpuOption::default()));
}

const MISTAKES: &[(&str, &str)] = &[
    ("width", "'width' is not KEY=VALUE"),
    (
        "depth=8",
        "unknown key 'depth'; the keys are width, height, outputs, refresh, backend, venus, hostmem, wayland, and limits",
    ),
    (
        "width=0",
        "'width=0' is not allowed; 16 to 16384 pixels are",
    ),
    (
        "outputs=17",
        "'outputs=17' is not allowed; 1 to 16 outputs are",
    ),
    (
        "hostmem=0",
        "'hostmem=0' is not allowed; a power of 2 such as 256M, from 1M to 1024G, is",
    ),
    (
        "hostmem=99999999999G",
        "'hostmem=99999999999G' is not allowed; a power of 2 such as 256M, from 1M to 1024G, is",
    ),
    (
        "hostmem=3M",
        "'hostmem=3M' is not allowed; a power of 2 such as 256M, from 1M to 1024G, is",
    ),
    (
        "hostmem=64M",
        "'hostmem' needs backend=virgl or wayland=PATH: nothing else has memory to map",
    ),
    (
        "wayland=,hostmem=64M",
        "'wayland=' is not allowed; a path is",
    ),
    (
        "wayland=/run/wayland-0",
        "'wayland' needs hostmem=SIZE: windows' buffers are the host's memory, and the guest maps it",
    ),
    (
        "venus=on",
        "'venus' needs backend=virgl: virglrenderer renders Vulkan",
    ),
    ("venus=yes", "'venus=yes' is not allowed; on and off are"),
    ("width=640,width=641", "'width' is given twice"),
    (
        "max_resources=0",
        "'max_resources=0' is not allowed; 1 to 1048576 are",
    ),
    (
        "max_contexts=1T",
        "'max_contexts=1T' is not allowed; 0 to 65536 are",
    ),
    (
        "socket=/x",
        "'socket' belongs to a VMM's --gpu; here the keys are width, height, outputs, refresh, backend, venus, hostmem, \
             wayland, and limits",
    ),
];

#[test]
fn a_mistake_is_named_with_what_is_allowed() {
    for (text, message) in MISTAKES {
        let error = text.parse::<GpuOption>().unwrap_err();
        assert_eq!(error.to_string(), *message);
    }
}

#[test]
fn the_hosts_compositor_is_reached_with_either_backend() {
    let option: GpuOption = "wayland=/run/wayland-0,hostmem=64M".parse().unwrap();
    assert_eq!(option.backend, Backend::TwoD);
    assert_eq!(option.wayland, Some("/run/wayland-0".into()));
    assert_eq!(option.hostmem, Some(64 << 20));
    let limited = "wayland=/w,hostmem=1M,max_channels=2,max_channel_files=64,max_channel_bytes=4K";
    let option: GpuOption = limited.parse().unwrap();
    let config = option.gpu_config().unwrap();
    assert_eq!(config.limits().max_channels, 2);
    assert_eq!(config.limits().max_channel_bytes, 4096);
}

#[test]
fn a_backend_that_this_build_lacks_is_refused() {
    let error = "backend=4d".parse::<GpuOption>().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("'backend=4d' is not allowed; 2d ")
    );
    let virgl = "backend=virgl".parse::<GpuOption>();
    assert_eq!(virgl.is_ok(), cfg!(feature = "virgl"));
}

#[test]
fn a_limit_reaches_the_device() {
    let option: GpuOption = "max_resources=7,max_host_bytes=1M".parse().unwrap();
    let config = option.gpu_config().unwrap();
    assert_eq!(config.limits().max_resources, 7);
    assert_eq!(config.limits().max_host_bytes, 1 << 20);
}

#[test]
fn a_limit_that_no_device_has_is_refused_by_name_before_one_is_made() {
    let names = Limits::TABLE.iter().map(|info| info.name);
    let names: Vec<&str> = names.collect();
    for (json, expected) in [
        (
            r#"{"limits": {"max_everything": 1}}"#,
            "there is no limit 'max_everything'; the limits are max_host_bytes, ",
        ),
        (
            r#"{"limits": {"max_resources": 0}}"#,
            "'max_resources=0' is not allowed; 1 to 1048576 are",
        ),
    ] {
        let gpu: GpuOption = serde_json::from_str(json).unwrap();
        let vmm: VmmGpuOption = serde_json::from_str(json).unwrap();
        for refused in [gpu.check(), vmm.check()] {
            let message = refused.unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        gpu.gpu_config().unwrap_err();
    }
    let unknown = GpuOption {
        limits: [("max_everything".into(), 1)].into(),
        ..GpuOption::default()
    };
    let message = unknown.check().unwrap_err().to_string();
    assert!(names.iter().all(|name| message.contains(name)), "{message}");
}

#[test]
fn a_size_that_the_device_refuses_is_refused_by_the_option() {
    for (width, height) in [(15, 600), (16385, 600), (800, 15), (800, 16385)] {
        let size = OutputSize { width, height };
        let option = GpuOption {
            size,
            ..GpuOption::default()
        };
        option.gpu_config().unwrap_err();
        let message = option.check().unwrap_err().to_string();
        assert!(message.ends_with("16 to 16384 pixels are"), "{message}");
    }
}

#[test]
fn the_guest_is_told_the_refresh_rate_that_was_asked_for() {
    for (text, hz) in [
        ("", 60),
        ("refresh=24", 24),
        ("refresh=75", 75),
        ("refresh=144", 144),
    ] {
        let option: GpuOption = text.parse().unwrap();
        let mut driver = GpuDriver::with_config(option.gpu_config().unwrap());
        let answer: RespEdid = driver.control(request::get_edid(0)).payload();
        let timing = &answer.edid[54..72];
        let pair = |low: usize, high: u8| u32::from(timing[low]) | u32::from(high) << 8;
        let columns = pair(2, timing[4] >> 4) + pair(3, timing[4] & 15);
        let lines = pair(5, timing[7] >> 4) + pair(6, timing[7] & 15);
        let clock_hz = pair(0, timing[1]) * 10_000;
        assert_eq!((clock_hz + columns * lines / 2) / (columns * lines), hz);
    }
    let error = "refresh=23".parse::<GpuOption>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "'refresh=23' is not allowed; 24 to 240 Hz are"
    );
}

/// As a VMM has it: what every device has of the bus, then the GPU.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct InAVmm {
    #[serde(flatten)]
    bus: OnTheBus,
    #[serde(flatten)]
    option: VmmGpuOption,
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct OnTheBus {
    id: String,
    #[serde(default)]
    iommu: bool,
}

#[test]
fn json_with_a_key_that_does_not_exist_is_refused_by_name() {
    for (json, expected) in [
        (
            r#"{"depth": 8}"#,
            "unknown key 'depth'; the keys are width, ",
        ),
        (
            r#"{"max_resources": 8}"#,
            "'max_resources' belongs in 'limits'",
        ),
        (
            r#"{"width": "x"}"#,
            "'width': invalid type: string \"x\", expected u64",
        ),
        (r#"{"width": null}"#, "'width=16-16384' cannot be that"),
        (
            r#"{"width": 4294967296}"#,
            "'width=16-16384' cannot be that",
        ),
        (r#"{"backend": "4d"}"#, "'backend=4d' is not allowed; 2d "),
        (
            r#"{"outputs": 1, "outputs": 1}"#,
            "'outputs' is given twice",
        ),
        (r#"{"limits": {}, "limits": {}}"#, "'limits' is given twice"),
    ] {
        let gpu = serde_json::from_str::<GpuOption>(json).unwrap_err();
        let vmm = serde_json::from_str::<VmmGpuOption>(json).unwrap_err();
        for message in [gpu.to_string(), vmm.to_string()] {
            assert!(message.starts_with(expected), "{json}: {message}");
        }
    }
    let message = serde_json::from_str::<GpuOption>(r#"{"socket": "/x"}"#).unwrap_err();
    assert!(
        message
            .to_string()
            .starts_with("'socket' belongs to a VMM's --gpu")
    );
    let message = serde_json::from_str::<InAVmm>(r#"{"id": "gpu0", "depth": 8}"#).unwrap_err();
    assert!(message.to_string().starts_with("unknown key 'depth'"));
}

#[test]
fn json_may_be_part_of_a_vmms_own_and_says_nothing_that_is_as_it_is_by_itself() {
    let json = r#"{"id": "gpu0", "iommu": true, "outputs": 2, "width": 1280, "hostmem": null, "pci_segment": 3}"#;
    let read: InAVmm = serde_json::from_str(json).unwrap();
    assert_eq!(read.bus.id, "gpu0");
    assert_eq!(read.option, "outputs=2".parse().unwrap());
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(written, r#"{"id":"gpu0","iommu":true,"outputs":2}"#);
    assert_eq!(serde_json::from_str::<InAVmm>(&written).unwrap(), read);
    assert_eq!(
        serde_json::to_string(&VmmGpuOption::default()).unwrap(),
        "{}"
    );
}

#[test]
fn every_row_is_one_that_a_person_can_use() {
    let keys: Vec<key::Key> = table::all().collect();
    let usual = VmmGpuOption::default();
    for key in &keys {
        let same = keys.iter().filter(|other| other.name == key.name).count();
        assert_eq!(same, 1, "{}", key.name);
        assert!(
            key.help.len() > 20 && !key.help.contains('\n'),
            "{}",
            key.name
        );
        assert!(!usual.is_given(key), "{}", key.name);
        for wanted in key.needs.iter().flat_map(|need| need.any) {
            let (name, value) = wanted.split_once('=').unwrap();
            let needed = keys.iter().find(|key| key.name == name).unwrap();
            let form = needed.kind.form();
            assert!(
                form == value || form.split('|').any(|word| word == value),
                "{wanted}"
            );
        }
    }
    // A word for each variant.
    for (variants, words) in [
        (Backend::VARIANTS.len(), Backend::WORDS.len()),
        (LayoutOption::VARIANTS.len(), LayoutOption::WORDS.len()),
    ] {
        assert_eq!(variants, words);
    }
}

#[test]
fn a_vmms_help_has_every_key_with_its_values() {
    let syntax = VmmGpuOption::syntax();
    let start = "width=<16-16384>,height=<16-16384>,outputs=<1-16>,refresh=<24-240>,backend=2d|virgl,venus=on|off,hostmem=<size>,\
                 wayland=<path>,";
    assert!(syntax.starts_with(start), "{syntax}");
    let words = "freeze=on|off,layout=seed|tail,control=<path>,socket=<path>,id=<id>,pci_segment=<pci_segment>,\
                 pci_device_id=<pci_device_id>,max_host_bytes=<1-1099511627776>,";
    assert!(syntax.contains(words), "{syntax}");
    assert_eq!(syntax.split(',').count(), table::all().count());
}

#[test]
fn the_servers_help_explains_every_key_and_limit() {
    let help = GpuOption::help();
    for row in [
        "  venus=on|off  (default off; needs backend=virgl and hostmem=SIZE)\n      Whether Vulkan ",
        "  hostmem=SIZE, a power of 2 from 1M to 1024G  (default none; needs backend=virgl or wayland=PATH)",
        "  width=16-16384  (default 1280)\n      Preferred width of each output, in pixels.\n",
        "  max_resources=16384  (1 to 1048576)\n      Resources alive or retained at a time. Why: a desktop",
    ] {
        assert!(help.contains(row), "{row} is not in\n{help}");
    }
    for name in GpuOption::names() {
        assert!(help.contains(&format!("  {name}=")), "{name}");
    }
}

#[test]
fn holds_are_listed_by_name() {
    assert_eq!("none".parse(), Ok(HoldList(HoldSources::NONE)));
    assert_eq!(
        "bus-master,d3hot,function-reset,same-driver".parse(),
        Ok(HoldList(HoldSources::ALL))
    );
    let error = "d3cold".parse::<HoldList>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown hint 'd3cold'; the hints are d3hot, bus-master, function-reset and same-driver, or none"
    );
}
