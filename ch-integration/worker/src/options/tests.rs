// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grammar.

use super::*;

#[test]
fn every_key_is_read() {
    let option: GpuOption =
        "backend=2d,venus=off,outputs=2,width=640,height=480,max_contexts=5,max_submit_bytes=2M"
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

#[test]
fn a_mistake_is_named_with_what_is_allowed() {
    for (text, message) in [
        ("width", "'width' is not KEY=VALUE"),
        (
            "depth=8",
            "unknown key 'depth'; the keys are backend, venus, outputs, width, height, hostmem and wayland, and \
             limits",
        ),
        (
            "width=0",
            "'width=0' is not allowed; a number of pixels from 1 to 32768 is",
        ),
        ("outputs=17", "'outputs=17' is not allowed; 1 to 16 are"),
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
            "'hostmem' has no effect without backend=virgl or wayland=PATH",
        ),
        (
            "wayland=,hostmem=64M",
            "'wayland=' is not allowed; a path is",
        ),
        (
            "wayland=/run/wayland-0",
            "'wayland' needs hostmem=SIZE: windows' buffers are the host's memory, and the guest maps it",
        ),
        ("venus=on", "'venus' has no effect without backend=virgl"),
        ("venus=yes", "'venus=yes' is not allowed; on and off are"),
        ("width=1,width=2", "'width' is given twice"),
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
            "'socket' belongs to a VMM's --gpu; here the keys are backend, venus, outputs, width, height, hostmem and \
             wayland",
        ),
    ] {
        let error = text.parse::<GpuOption>().unwrap_err();
        assert_eq!(error.to_string(), message);
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
    let mut option = GpuOption::default();
    option.limits.insert("max_everything".into(), 1);
    let error = option.gpu_config().unwrap_err().to_string();
    assert_eq!(error, "There is no limit max_everything");
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
