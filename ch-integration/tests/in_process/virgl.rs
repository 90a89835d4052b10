// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 3D behind the filters of the renderer's lists, of system calls and of files. A process has one virgl renderer, so
//! this is one test.

use std::fs::File;
use std::io::ErrorKind;

use ch_integration::seccomp::HostPath;
use ch_integration::{GpuOption, GpuRequestError, GpuStart, GpuThread, StartGpuError, seccomp};
use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3::testing::{GuestBuffer, request};
use virtio_pci_freeze::ActivationKind;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::{Gpu, RAM_BASE, Vmm, new_memory, spawn_filtered, type_of};

const SIZE: u32 = 64;
const TEXTURE: Resource3d = request::texture(SIZE, SIZE);
const WHOLE: Transfer3d = request::whole(&TEXTURE);
/// Behind the rings and buffers.
const BACKING: u64 = RAM_BASE + 0x4_0000;
const BYTES: u32 = SIZE * SIZE * 4;

/// `CLEAR` of every colour buffer, of which blue is `blue`.
fn clear(vmm: &mut Vmm, blue: f32, fence_id: u64) {
    let stream = [7 | 8 << 16, 4, 0, 0, blue.to_bits(), 0, 0, 0, 0];
    vmm.must(&request::fenced(1, fence_id, request::submit_3d(&stream)));
}

/// What the texture holds, through guest memory: all of one blue.
fn blue(vmm: &mut Vmm) -> u8 {
    let read = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, 10, &WHOLE);
    vmm.must(&request::in_context(1, read));
    let mut bytes = vec![0; BYTES as usize];
    let at = GuestAddress(BACKING);
    vmm.guard().read_slice(&mut bytes, at).unwrap();
    assert!(bytes.chunks(4).all(|pixel| pixel == [bytes[0], 0, 0, 0]));
    bytes[0]
}

/// A context with a surface to draw to, on memory of the guest.
fn make_target(vmm: &mut Vmm) {
    let backing = GuestBuffer::of(&[(BACKING, BYTES)]);
    let surface = [1 | 8 << 8 | 5 << 16, 7, 10, 1, 0, 0];
    let framebuffer = [5 | 3 << 16, 1, 0, 7];
    let stream = [surface.as_slice(), &framebuffer].concat();
    for request in [
        request::in_context(1, request::ctx_create(2)),
        request::resource_create_3d(10, &TEXTURE),
        request::resource_attach_backing(10, backing.entries()),
        request::in_context(1, request::ctx_attach_resource(10)),
        request::fenced(1, 1, request::submit_3d(&stream)),
    ] {
        vmm.must(&request);
    }
}

/// Of all files, this thread and those that it starts reach these alone from now on, if the kernel has Landlock.
fn restrict_to(paths: &[HostPath]) {
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

fn start(option: &str) -> Result<Gpu, StartGpuError> {
    let option: GpuOption = option.parse().unwrap();
    let lists = [seccomp::GPU_2D, seccomp::GPU_VIRGL];
    let spawn = |thread: GpuThread| spawn_filtered(&lists, || thread.run());
    Gpu::start(&option, GpuStart::default(), spawn)
}

#[test]
fn a_3d_context_outlives_a_sleep_and_the_renderer_the_vmms_reboot() {
    restrict_to(seccomp::PATHS_VIRGL);
    let mut vmm = Vmm::with_gpu(start("backend=virgl").unwrap(), new_memory());
    assert_eq!(vmm.gpu.features() & 1, 1, "VIRTIO_GPU_F_VIRGL");
    vmm.start_driver();
    make_target(&mut vmm);
    clear(&mut vmm, 0.2, 2);
    assert_eq!(blue(&mut vmm), 51);

    let positions = vmm.gpu.reset_frozen().unwrap();
    vmm.activate(ActivationKind::Reinstated, positions);
    assert_eq!(blue(&mut vmm), 51);
    clear(&mut vmm, 0.4, 3);
    assert_eq!(blue(&mut vmm), 102);

    vmm.gpu.pause().unwrap();
    let refused = vmm.gpu.save().unwrap_err();
    assert!(matches!(refused, GpuRequestError::Save(_)), "{refused}");
    vmm.gpu.resume();

    // The VMM drops its devices and makes them anew.
    drop(vmm);
    let refused = start("backend=virgl,outputs=2").unwrap_err();
    assert!(matches!(refused, StartGpuError::Device(_)), "{refused}");
    let mut vmm = Vmm::with_gpu(start("backend=virgl").unwrap(), new_memory());
    assert_eq!(vmm.gpu.status().unwrap().resources, 0);
    vmm.start_driver();
    let stale = vmm.command(0, &request::resource_unref(10));
    assert_eq!(type_of(&stale), ResponseType(0x1203));
    make_target(&mut vmm);
    clear(&mut vmm, 0.6, 2);
    assert_eq!(blue(&mut vmm), 153);
}
