// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host visible region as a range of the VMM's own memory, which it shows to the guest whole: blobs are mapped into
//! it and out of it, and the VMM and its hypervisor need not hear of it.
#![expect(
    unsafe_code,
    reason = "blobs are mapped over a part of a range that somebody else mapped"
)]

use std::any::Any;
use std::ffi::c_void;
use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::os::fd::AsFd;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use virtio_gpu_s3::renderer::BlobMapping;
use virtio_gpu_s3::{HostVisible, MapError};
use vm_memory::MmapRegion;
use vm_memory::bitmap::Bitmap;

use crate::memory_file::check_blob_file;

/// A range of this process's address space that the guest sees as shared memory region 1.
///
/// A blob appears in it as its file is mapped over the part of the range that the guest names; afterwards that part is
/// anonymous memory again. What no blob has reads as zeros; what a guest writes there is the guest's own, and takes no
/// more of the host than the region's size, until a blob comes or the range goes.
///
/// A blob without a file is refused: a copy would not follow what the renderer and the guest write.
#[derive(Clone)]
pub struct HostWindow {
    size: u64,
    range: Arc<Mutex<Option<Range>>>,
}

struct Range {
    address: usize,
    /// Keeps it mapped.
    _region: Arc<dyn Any + Send + Sync>,
}

impl Debug for HostWindow {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("HostWindow")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl HostWindow {
    /// A region that is the VMM's for nothing else: private, anonymous, writable.
    pub fn new<B: Bitmap + Send + Sync + 'static>(region: &Arc<MmapRegion<B>>) -> Self {
        let range = Range {
            address: region.as_ptr().expose_provenance(),
            _region: region.clone(),
        };
        Self {
            size: region.size() as u64,
            range: Arc::new(Mutex::new(Some(range))),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, Option<Range>> {
        self.range.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the VMM's range, in which nothing is mapped any more.
    #[cfg(feature = "virgl")]
    pub(super) fn leave(&self) {
        *self.lock() = None;
    }

    /// Goes on in another range of the same size.
    #[cfg(feature = "virgl")]
    pub(super) fn move_to(&self, other: &Self) {
        let range = other.lock().take();
        *self.lock() = range;
    }

    /// Does `change` to a part of the range, given its address.
    fn at(
        &self,
        offset: u64,
        size: u64,
        change: impl FnOnce(*mut c_void, usize) -> Result<(), String>,
    ) -> Result<(), MapError> {
        let range = self.lock();
        let error = |why| MapError { offset, size, why };
        let range = range.as_ref().ok_or_else(|| error("it is gone".into()))?;
        let end = offset.checked_add(size).filter(|end| *end <= self.size);
        let start = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let (Some((start, length)), Some(_)) = (start, end) else {
            return Err(error("it has no such part".into()));
        };
        let address = ptr::with_exposed_provenance_mut(range.address + start);
        change(address, length).map_err(error)
    }
}

impl HostVisible for HostWindow {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&mut self, offset: u64, size: u64, blob: BlobMapping) -> Result<(), MapError> {
        let Some(mut file) = blob.file else {
            let why = "the blob is in no file, and a copy of it would be another blob".into();
            return Err(MapError { offset, size, why });
        };
        self.at(offset, size, |address, length| {
            check_blob_file(&mut file, blob.size).map_err(|error| error.to_string())?;
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: `at` checked that the part lies in a range that is mapped for this alone, and holds the lock
            // under which it goes. Nobody has references into it: the guest reaches it, which no reference is made of.
            let mapped = unsafe { mmap(address, length, protection, flags, file.as_fd(), 0) };
            told(mapped)
        })
    }

    fn unmap(&mut self, offset: u64, size: u64) -> Result<(), MapError> {
        self.at(offset, size, |address, length| {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            // SAFETY: as above.
            told(unsafe { mmap_anonymous(address, length, protection, flags) })
        })
    }
}

fn told(mapped: Result<*mut c_void, Errno>) -> Result<(), String> {
    mapped.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use vm_memory::{Bytes, FileOffset, VolatileMemory};

    use super::*;

    const SIZE: usize = 64 << 10;

    fn window() -> (HostWindow, Arc<MmapRegion<()>>) {
        let region = Arc::new(MmapRegion::new(SIZE).unwrap());
        (HostWindow::new(&region), region)
    }

    fn file(size: u64) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("blob", flags).unwrap());
        ftruncate(&file, size).unwrap();
        file
    }

    fn blob(file: Option<File>) -> BlobMapping {
        BlobMapping {
            resource_id: 1,
            file,
            size: 5000,
            map_info: 1,
        }
    }

    fn byte(region: &MmapRegion<()>, offset: usize) -> u8 {
        let mut byte = [0xee];
        let slice = region.get_slice(offset, 1).unwrap();
        slice.read_slice(&mut byte, 0).unwrap();
        byte[0]
    }

    fn write(region: &MmapRegion<()>, offset: usize, byte: u8) {
        let slice = region.get_slice(offset, 1).unwrap();
        slice.write_slice(&[byte], 0).unwrap();
    }

    #[test]
    fn a_blob_is_its_file_both_ways_and_only_where_it_was_mapped() {
        let (mut window, region) = window();
        let file = file(5000);
        let renderers = file.try_clone().unwrap();
        let renderers = MmapRegion::<()>::from_file(FileOffset::new(renderers, 0), 5000).unwrap();
        window.map(0x3000, 0x2000, blob(Some(file))).unwrap();
        write(&region, 0x3000 + 4999, 7);
        assert_eq!(byte(&renderers, 4999), 7);
        write(&renderers, 0, 8);
        assert_eq!(byte(&region, 0x3000), 8);
        write(&region, 0x2fff, 1);
        write(&region, 0x5000, 2);
        window.unmap(0x3000, 0x2000).unwrap();
        assert_eq!(byte(&region, 0x3000), 0);
        write(&region, 0x3000, 9);
        assert_eq!(byte(&renderers, 0), 8);
        assert_eq!((byte(&region, 0x2fff), byte(&region, 0x5000)), (1, 2));
    }

    #[test]
    fn what_cannot_be_mapped_is_refused_by_name_and_leaves_what_was_there() {
        let (mut window, region) = window();
        write(&region, 0, 5);
        for (refused, why) in [
            (blob(None), "in no file"),
            (blob(Some(file(4999))), "has 4999 bytes, and the blob 5000"),
            (blob(Some(File::open("/dev/zero").unwrap())), "cut short"),
        ] {
            let error = window.map(0, 0x2000, refused).unwrap_err();
            assert!(error.why.contains(why), "{error}");
        }
        let outside = window.map(0xf000, 0x2000, blob(Some(file(5000))));
        assert_eq!(outside.unwrap_err().why, "it has no such part");
        assert!(window.unmap(u64::MAX - 0xfff, 0x1000).is_err());
        assert_eq!(byte(&region, 0), 5);
    }
}
