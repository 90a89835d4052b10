// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files out of reach.

use std::fs::File;
use std::io::ErrorKind;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use virtio_gpu_worker::seccomp::HostPath;

/// Of all files, this thread and those that it starts reach these alone from now on, if the kernel has Landlock.
pub(crate) fn restrict_to(paths: &[HostPath]) {
    const ABI: ABI = ABI::V3;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI));
    let mut ruleset = ruleset.unwrap().create().unwrap();
    for path in paths {
        let access = if path.write {
            AccessFs::from_all(ABI)
        } else {
            AccessFs::from_read(ABI)
        };
        let rules = path_beneath_rules([path.path], access);
        ruleset = ruleset.add_rules(rules).unwrap();
    }
    if ruleset.restrict_self().unwrap().ruleset == RulesetStatus::NotEnforced {
        eprintln!("this kernel has no Landlock: every file is within reach");
        return;
    }
    let other = File::open(env!("CARGO_MANIFEST_PATH")).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::PermissionDenied);
}
