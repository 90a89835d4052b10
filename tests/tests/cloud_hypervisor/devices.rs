// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Retention for all of Cloud Hypervisor's own virtio devices (`--platform virtio_freeze=`).

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::Target;
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup, virtiofsd};

use crate::wait::until;
use crate::{sleep, vsock};

/// By virtio-fs, and by the generic vhost-user device.
const SHARES: [&str; 2] = ["share", "generic"];
/// What Linux has of 512 MiB is less, and of 128 MiB more it is more.
const SMALL_KIB: u32 = 512 << 10;
const VMM_LOG: &str = "/tmp/cloud-hypervisor.log";
/// Virtio devices that every guest here has: net, block, console, entropy, balloon, vsock, pmem, rtc, watchdog.
const DEVICES: usize = 9;
/// Of those, the ones that a driver in each kernel here drives.
const DRIVEN: u32 = 7;
/// Of every frozen and every other reset of a device that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resets {
    frozen: u32,
    full: u32,
}

struct Guest {
    nested: Nested,
    label: String,
    kernel: Kernel,
    gpu: bool,
}

/// Debian's 6.1 has no virtio-iommu, and its virtio-fs and virtio-mem refuse to sleep.
fn sleeps_with_all(kernel: Kernel) -> bool {
    kernel != Kernel::V6_1
}

impl Guest {
    /// Boots `kernel` with a device of every kind and these values for `virtio_freeze`.
    fn boot(name: &str, kernel: Kernel, platform: &str) -> Result<Option<Self>> {
        let (Some(vmm), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
            return Ok(None);
        };
        let gpu = sleep::vmm_knows("--gpu")?;
        let mut setup = setup(name, kernel, platform);
        if gpu {
            setup
                .arguments
                .push("--gpu width=640,height=480,control=/tmp/control".to_owned());
        }
        let mut guest = Self {
            nested: Nested::boot(&lab, &vmm, &setup)?,
            label: format!("{name}-{kernel}"),
            kernel,
            gpu,
        };
        guest.prepare()?;
        guest.must_work("booted")?;
        Ok(Some(guest))
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.label);
    }

    fn prepare(&mut self) -> Result<()> {
        self.nested
            .inner_run("ip addr add 192.168.9.2/24 dev eth0 && ip link set eth0 up")?;
        vsock::prepare(&self.nested)?;
        if sleeps_with_all(self.kernel) {
            for share in SHARES {
                self.nested.inner_run(&format!(
                    "mkdir /tmp/{share} && mount -t virtiofs {share} /tmp/{share}"
                ))?;
            }
            self.nested
                .inner_run("echo online >/sys/devices/system/memory/auto_online_blocks")?;
        }
        Ok(())
    }

    /// Every device does what it is for; `when` is a word that it does it with.
    fn must_work(&self, when: &str) -> Result<()> {
        type Step<'a> = (&'a str, &'a dyn Fn() -> Result<()>);
        let steps: [Step<'_>; 11] = [
            ("disk", &|| self.disk_works("vda", "/tmp/disk", when)),
            ("pmem", &|| self.disk_works("pmem0", "/tmp/pmem", when)),
            ("net and entropy", &|| self.net_and_entropy_work()),
            ("console", &|| self.console_works(when)),
            ("status", &|| self.all_run()),
            ("balloon", &|| self.balloon_works()),
            ("vsock", &|| vsock::must_work(&self.nested, when)),
            ("memory", &|| self.memory_device_works()),
            ("shares", &|| self.shares_work(when)),
            ("translated disk", &|| self.translated_disk_works(when)),
            ("GPU", &|| self.gpu_works(when)),
        ];
        for (what, works) in steps {
            works().with_context(|| format!("{}, {when}: {what}", self.label))?;
        }
        Ok(())
    }

    /// To the disk and not to the cache; then from the disk and not from the cache.
    fn disk_works(&self, device: &str, file: &str, when: &str) -> Result<()> {
        let size = when.len();
        let read = self.nested.inner_run(&format!(
            "echo {when} | dd of=/dev/{device} conv=sync,fsync 2>/dev/null && \
             echo 3 >/proc/sys/vm/drop_caches && head -c {size} /dev/{device}"
        ))?;
        ensure!(read == when, "the guest reads {read:?} from {device}");
        let stored = self.nested.run(&format!("head -c {size} {file}"))?;
        ensure!(stored == when, "{file} has {stored:?}");
        Ok(())
    }

    fn net_and_entropy_work(&self) -> Result<()> {
        self.nested.inner_run("ping -c 3 -W 10 192.168.9.1")?;
        let entropy = self.nested.inner_run(
            "cat /sys/class/misc/hw_random/rng_current && head -c 64 /dev/hwrng | wc -c",
        )?;
        let is_good = entropy.starts_with("virtio_rng") && entropy.ends_with("64\n");
        ensure!(is_good, "entropy: {entropy:?}");
        Ok(())
    }

    fn console_works(&self, when: &str) -> Result<()> {
        self.nested.inner_run(&format!("echo {when} >/dev/hvc0"))?;
        let look = format!("grep -q {when} /tmp/console");
        until("console", || Ok(self.nested.run(&look).is_ok()))
    }

    fn all_run(&self) -> Result<()> {
        let count = "grep -l 0x0000000f /sys/bus/virtio/devices/*/status | wc -l";
        let running: u32 = self.nested.inner_run(count)?.trim().parse()?;
        ensure!(running >= DRIVEN, "only {running} devices run");
        Ok(())
    }

    fn balloon_works(&self) -> Result<()> {
        let full = self.memory()?;
        self.nested.ch_remote("resize --balloon 64M")?;
        until(
            "inflated balloon",
            || Ok(self.memory()? <= full - 64 * 1024),
        )?;
        self.nested.ch_remote("resize --balloon 0")?;
        until("deflated balloon", || Ok(self.memory()? == full))
    }

    fn memory(&self) -> Result<u32> {
        let total = "awk '/^MemTotal/ {print $2}' /proc/meminfo";
        Ok(self.nested.inner_run(total)?.trim().parse()?)
    }

    /// The guest gets 128 MiB more, or gives them back.
    fn memory_device_works(&self) -> Result<()> {
        const STEP_KIB: u32 = 128 << 10;
        if !sleeps_with_all(self.kernel) {
            return Ok(());
        }
        let before = self.memory()?;
        let (size, after) = if before < SMALL_KIB {
            ("640M", before + STEP_KIB)
        } else {
            ("512M", before - STEP_KIB)
        };
        self.nested.ch_remote(&format!("resize --memory {size}"))?;
        until(size, || Ok(self.memory()?.abs_diff(after) < STEP_KIB / 8))
    }

    fn shares_work(&self, when: &str) -> Result<()> {
        if !sleeps_with_all(self.kernel) {
            return Ok(());
        }
        for share in SHARES {
            self.nested
                .inner_run(&format!("echo {when} >/tmp/{share}/word"))?;
            let shared = self.nested.run(&format!("cat /tmp/{share}/word"))?;
            ensure!(shared.trim() == when, "{share} has {shared:?}");
            let new = format!("/tmp/{share}/new-{when}");
            self.nested.run(&format!("echo {when} >{new}"))?;
            let read = self.nested.inner_run(&format!("cat {new}"))?;
            ensure!(read.trim() == when, "the guest reads {read:?}");
        }
        Ok(())
    }

    fn translated_disk_works(&self, when: &str) -> Result<()> {
        if !sleeps_with_all(self.kernel) {
            return Ok(());
        }
        self.nested.inner_run("ls /sys/class/iommu | grep .")?;
        self.disk_works("vdb", "/tmp/disk2", when)
    }

    fn gpu_works(&self, when: &str) -> Result<()> {
        if !self.gpu {
            return Ok(());
        }
        // Each time another picture.
        let seed = when.bytes().map(u32::from).sum();
        self.nested.show(Target::Drm, seed)?;
        self.nested.must_have_no_gpu_complaint(0)
    }

    /// A real sleep where the guest is offered one, or else one cut short once all devices sleep.
    fn must_sleep_as_deep_as_it_can(&self, when: &str) -> Result<()> {
        let how = sleep::as_deep_as_offered(&self.nested, || Ok(()))?;
        self.say(&format!("{when}: {how}"));
        self.must_work(when)
    }

    /// A disk in use all the while: nothing of it is lost, or written twice, or in another order.
    fn must_sleep_while_writing(&self) -> Result<()> {
        let copy = "for i in 1 2 3 4; do dd if=/dev/urandom of=/tmp/random bs=64k count=16; \
                    dd if=/tmp/random of=/dev/vda seek=1 bs=64k conv=fsync; done";
        self.nested.inner_run(&format!(
            "({copy}) </dev/null >/tmp/writer.log 2>&1 & echo $! >/tmp/writer"
        ))?;
        self.must_sleep_as_deep_as_it_can("slept-while-writing")?;
        until("end of the writer", || {
            let gone = "! kill -0 $(cat /tmp/writer) 2>/dev/null";
            Ok(self.nested.inner_run(gone).is_ok())
        })?;
        let wanted = self.nested.inner_run("md5sum </tmp/random")?;
        let found = self
            .nested
            .run("dd if=/tmp/disk skip=1 bs=64k count=16 2>/dev/null | md5sum")?;
        ensure!(
            wanted == found,
            "the guest wrote {wanted}, the disk has {found}"
        );
        Ok(())
    }

    fn resets(&self) -> Result<Resets> {
        let count = |retained| -> Result<u32> {
            let count = format!("grep -c 'state retained: {retained}' {VMM_LOG} || true");
            Ok(self.nested.run(&count)?.trim().parse()?)
        };
        Ok(Resets {
            frozen: count("true")?,
            full: count("false")?,
        })
    }

    /// Freezes and unfreezes every device there is by its register.
    fn must_freeze_and_unfreeze(&self) -> Result<()> {
        let addresses = self.addresses()?;
        ensure!(addresses.len() >= DEVICES, "only {addresses:?}");
        for address in addresses {
            for (command, shown) in [("freeze", "FREEZE_S3"), ("unfreeze", "UNFREEZE")] {
                self.nested
                    .inner_run(&format!("virtio-freezectl {command} {address}"))?;
                let status = self
                    .nested
                    .inner_run(&format!("virtio-freezectl status {address}"))?;
                let expected = format!("freeze_mode {shown} ");
                ensure!(status.contains(&expected), "{command}: {status}");
            }
        }
        Ok(())
    }

    fn addresses(&self) -> Result<Vec<String>> {
        let vendors = self
            .nested
            .inner_run("grep -l 0x1af4 /sys/bus/pci/devices/*/vendor")?;
        let address = |path: &str| path.split('/').nth(5).map(str::to_owned);
        Ok(vendors.lines().filter_map(address).collect())
    }

    /// Configuration space of every virtio function. Every process costs a nested guest a good part of a
    /// second, so the common configuration is left to a unit test of the series.
    fn configuration_space(&self) -> Result<String> {
        let mut dump = String::new();
        for address in self.addresses()? {
            let read =
                format!("dd if=/sys/bus/pci/devices/{address}/config bs=256 count=1 | od -v -tx1");
            dump += &format!("{address}\n{}", self.nested.inner_run(&read)?);
        }
        Ok(dump)
    }
}

fn setup(name: &str, kernel: Kernel, platform: &str) -> Setup {
    let mut arguments: Vec<String> = [
        platform,
        "--disk path=/tmp/disk,image_type=raw",
        "--net tap=tap0,ip=192.168.9.1,mask=255.255.255.0",
        "--console file=/tmp/console",
        "--balloon size=0",
        "--vsock cid=3,socket=/tmp/vsock",
        "--pmem file=/tmp/pmem,size=16M",
        "--watchdog",
        "--rtc",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut prepare = vec!["truncate -s 16M /tmp/disk /tmp/disk2 /tmp/pmem".to_owned()];
    let mut memory = "";
    if sleeps_with_all(kernel) {
        memory = ",hotplug_method=virtio-mem,hotplug_size=256M";
        for share in SHARES {
            prepare.push(format!("mkdir /tmp/{share}"));
            let (directory, socket) = (format!("/tmp/{share}"), format!("/tmp/{share}.socket"));
            prepare.push(virtiofsd(share, &directory, &socket));
        }
        let [fs, generic] = SHARES;
        arguments.push(format!("--fs tag={fs},socket=/tmp/{fs}.socket"));
        arguments.push(format!(
            "--generic-vhost-user socket=/tmp/{generic}.socket,device_type=fs,queue_sizes=[512,512]"
        ));
        // Options of one kind come after one flag.
        if let Some(disk) = arguments.iter_mut().find(|it| it.starts_with("--disk")) {
            disk.push_str(" path=/tmp/disk2,image_type=raw,iommu=on");
        }
    }
    Setup {
        gpu: Gpu::InArguments,
        devices: true,
        memory,
        arguments,
        prepare,
        ..Setup::new(name, kernel)
    }
}

/// The options for the platform, with guest S3 where the VMM knows that.
fn platform(freeze: &str) -> Result<String> {
    let sleep = if sleep::vmm_knows("acpi_s3")? {
        "acpi_s3=on,"
    } else {
        ""
    };
    Ok(format!("--platform {sleep}virtio_freeze={freeze}"))
}

#[test]
fn linux_6_1_resets_every_device_twice_and_they_all_work_after() -> Result<()> {
    let Some(guest) = Guest::boot("ch-devices", Kernel::V6_1, &platform("seed")?)? else {
        return Ok(());
    };
    let mut before = guest.resets()?;
    for when in ["slept-once", "slept-twice"] {
        guest.must_sleep_as_deep_as_it_can(when)?;
        let after = guest.resets()?;
        guest.say(&format!("{before:?} -> {after:?}"));
        let driven = DRIVEN + u32::from(guest.gpu);
        let (frozen, full) = (after.frozen - before.frozen, after.full - before.full);
        ensure!(frozen + full == driven, "not all were reset once");
        // Drivers with sleep hooks reset before anything tells of a sleep, and set up what they need. Those of pmem and
        // of the GPU have none, and count on what they had.
        let without_hooks = 1 + u32::from(guest.gpu);
        ensure!(frozen == without_hooks, "a sleep was taken for a reset");
        before = after;
    }
    guest.must_sleep_while_writing()
}

#[test]
fn linux_7_resets_no_device_and_they_all_work_after_two_sleeps() -> Result<()> {
    let Some(guest) = Guest::boot("ch-devices", Kernel::V7, &platform("seed")?)? else {
        return Ok(());
    };
    let before = guest.resets()?;
    for when in ["slept-once", "slept-twice"] {
        guest.must_sleep_as_deep_as_it_can(when)?;
    }
    vsock::must_keep_a_connection(&guest.nested, || {
        guest.must_sleep_as_deep_as_it_can("slept-while-connected")
    })?;
    guest.must_sleep_while_writing()?;
    let after = guest.resets()?;
    ensure!(
        after == before,
        "No_Soft_Reset, and yet {before:?} -> {after:?}"
    );
    guest.must_freeze_and_unfreeze()
}

#[test]
fn without_the_option_configuration_space_is_as_in_a_stock_vmm() -> Result<()> {
    let (Some(ours), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
        return Ok(());
    };
    let Some(stock) = ours.base()? else {
        return Ok(());
    };
    let mut dumps = Vec::new();
    for (name, vmm) in [("ch-registers", &ours), ("ch-registers-stock", &stock)] {
        let setup = setup(name, Kernel::V7, "");
        let guest = Guest {
            nested: Nested::boot(&lab, vmm, &setup)?,
            label: name.to_owned(),
            kernel: Kernel::V7,
            gpu: false,
        };
        dumps.push(guest.configuration_space()?);
    }
    let [ours, stock] = dumps.as_slice() else {
        anyhow::bail!("two dumps");
    };
    ensure!(ours.lines().count() > DEVICES * 16, "hardly a dump: {ours}");
    ensure!(ours == stock, "ours:\n{ours}\nstock:\n{stock}");
    Ok(())
}
