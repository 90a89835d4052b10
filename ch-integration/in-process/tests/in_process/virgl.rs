// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 3D behind the filters of the renderer's lists, of system calls and of files. A process has one virgl renderer, so
//! this is one test.

use virtio_gpu_in_process::{GpuRequestError, GpuStart, GpuThread, StartGpuError};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::{request, scene};
use virtio_gpu_worker::{GpuOption, seccomp};
use virtio_pci_freeze::ActivationKind;
use vm_memory::{Bytes, GuestAddress};

use crate::sandbox::restrict_to;
use crate::vmm::{Gpu, RAM_BASE, Vmm, new_memory, spawn_filtered, type_of};

/// Behind the rings and buffers.
const BACKING: u64 = RAM_BASE + 0x4_0000;

fn clear(vmm: &mut Vmm, blue: f32, fence_id: u64) {
    let stream = request::submit_3d(&scene::clear(blue));
    vmm.must(&request::fenced(1, fence_id, stream));
}

/// What the texture holds, through guest memory: all of one blue.
fn blue(vmm: &mut Vmm) -> u8 {
    vmm.must(&scene::read_back());
    let mut bytes = vec![0; scene::BYTES as usize];
    let at = GuestAddress(BACKING);
    vmm.guard().read_slice(&mut bytes, at).unwrap();
    scene::blue_of(&bytes)
}

/// A context with a surface to draw to, on memory of the guest.
fn make_target(vmm: &mut Vmm) {
    for request in scene::make_target(BACKING) {
        vmm.must(&request);
    }
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
    assert!(matches!(refused, StartGpuError::Build(_)), "{refused}");
    let mut vmm = Vmm::with_gpu(start("backend=virgl").unwrap(), new_memory());
    assert_eq!(vmm.gpu.status().unwrap().resources, 0);
    vmm.start_driver();
    let stale = vmm.command(0, &request::resource_unref(10));
    assert_eq!(type_of(&stale), ResponseType(0x1203));
    make_target(&mut vmm);
    clear(&mut vmm, 0.6, 2);
    assert_eq!(blue(&mut vmm), 153);
}
