// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host visible region as a range of the VMM's own memory, into which blobs are mapped and out of it. A VMM either
//! shows the range to the guest whole, and its hypervisor need not hear of blobs, or has each blob in a memory slot of
//! its own, and then a blob may lie anywhere in the process.
#![expect(
    unsafe_code,
    reason = "blobs are mapped over a part of a range that somebody else mapped"
)]

use std::any::Any;
use std::ffi::c_void;
use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::fs::File;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use virtio_gpu_s3::renderer::BlobMapping;
use virtio_gpu_s3::{HostVisible, MapError};
use vm_memory::MmapRegion;
use vm_memory::bitmap::Bitmap;

use host_util::memory_file::check_blob_file;

/// Mappings are of whole pages.
const PAGE: usize = 4096;

/// A hypervisor's memory slots: parts of this process's memory in the guest's address space, behind the region.
pub trait MemorySlots: Send {
    /// Shows `size` bytes at `address` to the guest, from `offset` of the region on. All three are multiples of a page,
    /// and nothing is shown there.
    ///
    /// # Safety
    /// The bytes must stay mapped until [`MemorySlots::hide`] or the end of `self`, and be no memory that Rust code has
    /// references to.
    ///
    /// # Errors
    /// What the hypervisor says; nothing is shown.
    unsafe fn show(&mut self, offset: u64, address: *mut u8, size: usize) -> Result<(), String>;

    /// Ends what was shown from `offset` on.
    ///
    /// # Errors
    /// What the hypervisor says.
    fn hide(&mut self, offset: u64) -> Result<(), String>;

    /// The guest moved the region to this address.
    ///
    /// # Errors
    /// What the hypervisor says; what was shown may be in neither place.
    fn relocate(&mut self, base: u64) -> Result<(), String>;
}

/// A range of this process's address space that the guest sees as shared memory region 1.
///
/// A blob appears in it as its file is mapped over the part of the range that the guest names; afterwards that part is
/// anonymous memory again. Where the VMM shows the range whole, what no blob has reads as zeros; what a guest writes
/// there is the guest's own, and takes no more of the host than the region's size, until a blob comes or the range goes.
///
/// A blob without a file, as OpenGL's are, appears where it lies, which needs [`MemorySlots`]. Without them it is
/// refused: a copy would not follow what the renderer and the guest write.
#[derive(Clone)]
pub struct HostWindow {
    size: u64,
    range: Arc<Mutex<Option<Range>>>,
}

struct Range {
    address: usize,
    /// `None` where the VMM shows the range whole. Dropped before the memory is.
    slots: Option<Box<dyn MemorySlots>>,
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
    /// A region that is the VMM's for nothing else: private, anonymous, writable. The VMM shows it to the guest whole.
    pub fn new<B: Bitmap + Send + Sync + 'static>(region: &Arc<MmapRegion<B>>) -> Self {
        Self::of(region, None)
    }

    /// Such a region of which the guest sees nothing but what `slots` show.
    pub fn with_slots<B: Bitmap + Send + Sync + 'static>(
        region: &Arc<MmapRegion<B>>,
        slots: Box<dyn MemorySlots>,
    ) -> Self {
        Self::of(region, Some(slots))
    }

    fn of<B: Bitmap + Send + Sync + 'static>(
        region: &Arc<MmapRegion<B>>,
        slots: Option<Box<dyn MemorySlots>>,
    ) -> Self {
        let range = Range {
            address: region.as_ptr().expose_provenance(),
            slots,
            _region: region.clone(),
        };
        Self {
            size: region.size() as u64,
            range: Arc::new(Mutex::new(Some(range))),
        }
    }

    /// The guest moved the region to this address, as it may any BAR.
    ///
    /// # Errors
    /// What the hypervisor says.
    pub fn relocate(&self, base: u64) -> Result<(), String> {
        let mut range = self.lock();
        let slots = range.as_mut().and_then(|range| range.slots.as_mut());
        slots.map_or(Ok(()), |slots| slots.relocate(base))
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

    /// Does `change` to a part of the range.
    fn at(
        &self,
        offset: u64,
        size: u64,
        change: impl FnOnce(&mut Part<'_>) -> Result<(), String>,
    ) -> Result<(), MapError> {
        let mut range = self.lock();
        let error = |why| MapError { offset, size, why };
        let range = range.as_mut().ok_or_else(|| error("it is gone".into()))?;
        let end = offset.checked_add(size).filter(|end| *end <= self.size);
        let start = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let (Some((start, length)), Some(_)) = (start, end) else {
            return Err(error("it has no such part".into()));
        };
        let mut part = Part {
            offset,
            address: range.address + start,
            length,
            slots: &mut range.slots,
        };
        change(&mut part).map_err(error)
    }
}

/// A part of the range that is mapped for the region alone, under the lock under which it goes.
struct Part<'a> {
    offset: u64,
    address: usize,
    length: usize,
    slots: &'a mut Option<Box<dyn MemorySlots>>,
}

impl Part<'_> {
    fn address(&self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.address)
    }

    fn map_file(&mut self, file: &File) -> Result<(), String> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the part is the region's alone. Nobody has references into it: the guest reaches it, which no
        // reference is made of.
        let mapped = unsafe {
            mmap(
                self.address(),
                self.length,
                protection,
                flags,
                file.as_fd(),
                0,
            )
        };
        told(mapped)?;
        let address = self.address;
        self.show(address).or_else(|error| {
            self.clear()?;
            Err(error)
        })
    }

    /// Shows what lies at `address`, where there are slots at all.
    fn show(&mut self, address: usize) -> Result<(), String> {
        let Some(slots) = self.slots else {
            return Ok(());
        };
        let address = ptr::with_exposed_provenance_mut(address);
        // SAFETY: it is this part, or memory of the renderer's, which stays until the device, which hides it first,
        // ends the mapping. Only the guest and the renderer's C code reach it.
        unsafe { slots.show(self.offset, address, self.length) }
    }

    /// Shows memory of the renderer's.
    fn show_renderers(&mut self, blob: &BlobMapping) -> Result<(), String> {
        let (Some(_), Some(address)) = (&*self.slots, blob.address) else {
            return Err("the blob is in no file, and a copy of it would be another blob".into());
        };
        // What else is in a page is not the guest's.
        if !address.is_multiple_of(PAGE) || blob.size != self.length as u64 {
            return Err("the blob is in no file, and not in pages of its own".into());
        }
        self.show(address)
    }

    fn clear(&mut self) -> Result<(), String> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: as for a file.
        told(unsafe { mmap_anonymous(self.address(), self.length, protection, flags) })
    }
}

impl HostVisible for HostWindow {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&mut self, offset: u64, size: u64, blob: BlobMapping) -> Result<(), MapError> {
        self.at(offset, size, |part| {
            let Some(file) = &blob.file else {
                return part.show_renderers(&blob);
            };
            check_blob_file(file.file(), blob.size).map_err(|error| error.to_string())?;
            part.map_file(file.file())
        })
    }

    fn unmap(&mut self, offset: u64, size: u64) -> Result<(), MapError> {
        self.at(offset, size, |part| {
            if let Some(slots) = part.slots {
                slots.hide(offset)?;
            }
            part.clear()
        })
    }
}

fn told(mapped: Result<*mut c_void, Errno>) -> Result<(), String> {
    mapped.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            file: file.map(|file| FileOffset::new(file, 0)),
            address: None,
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

    type Shown = Arc<Mutex<BTreeMap<u64, (usize, usize)>>>;

    /// What a hypervisor would show, by offset: address and size.
    #[derive(Default)]
    struct Slots {
        shown: Shown,
        full: bool,
    }

    impl MemorySlots for Slots {
        unsafe fn show(
            &mut self,
            offset: u64,
            address: *mut u8,
            size: usize,
        ) -> Result<(), String> {
            if self.full {
                return Err("no slot is free".into());
            }
            let part = (address.expose_provenance(), size);
            assert_eq!(self.shown.lock().unwrap().insert(offset, part), None);
            Ok(())
        }

        fn hide(&mut self, offset: u64) -> Result<(), String> {
            let part = self.shown.lock().unwrap().remove(&offset);
            part.map(drop).ok_or_else(|| "nothing is shown".into())
        }

        fn relocate(&mut self, base: u64) -> Result<(), String> {
            Err(format!("no room at {base:#x}"))
        }
    }

    fn window_with_slots(full: bool) -> (HostWindow, Arc<MmapRegion<()>>, Shown) {
        let region = Arc::new(MmapRegion::new(SIZE).unwrap());
        let shown = Shown::default();
        let slots = Slots {
            shown: shown.clone(),
            full,
        };
        let window = HostWindow::with_slots(&region, Box::new(slots));
        (window, region, shown)
    }

    #[test]
    fn with_slots_a_blob_in_no_file_is_shown_where_it_lies() {
        let (mut window, region, shown) = window_with_slots(false);
        let memory = MmapRegion::<()>::new(0x2000).unwrap();
        let address = memory.as_ptr().expose_provenance();
        let renderers = |address, size| BlobMapping {
            address: Some(address),
            size,
            ..blob(None)
        };
        window
            .map(0x3000, 0x2000, renderers(address, 0x2000))
            .unwrap();
        window.map(0x8000, 0x2000, blob(Some(file(5000)))).unwrap();
        let within = region.as_ptr().expose_provenance() + 0x8000;
        let expected = [(0x3000, (address, 0x2000)), (0x8000, (within, 0x2000))];
        assert_eq!(*shown.lock().unwrap(), BTreeMap::from(expected));
        // Others' bytes in the same pages are not the guest's.
        for refused in [renderers(address + 64, 0x2000), renderers(address, 0x1800)] {
            let error = window.map(0, 0x2000, refused).unwrap_err();
            assert!(error.why.contains("not in pages of its own"), "{error}");
        }
        window.unmap(0x3000, 0x2000).unwrap();
        window.unmap(0x8000, 0x2000).unwrap();
        assert!(shown.lock().unwrap().is_empty());
        assert!(window.unmap(0x3000, 0x2000).is_err());
        assert_eq!(
            window.relocate(1 << 40).unwrap_err(),
            "no room at 0x10000000000"
        );
    }

    #[test]
    fn what_no_slot_is_left_for_is_not_mapped_either() {
        let (mut window, region, shown) = window_with_slots(true);
        let file = file(5000);
        let renderers =
            MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), 5000);
        let error = window.map(0x3000, 0x2000, blob(Some(file))).unwrap_err();
        assert_eq!(error.why, "no slot is free");
        write(&renderers.unwrap(), 0, 8);
        assert_eq!(byte(&region, 0x3000), 0);
        assert!(shown.lock().unwrap().is_empty());
    }

    #[test]
    fn without_slots_a_blob_in_no_file_is_refused_wherever_it_lies() {
        let (mut window, region) = window();
        let blob = BlobMapping {
            address: Some(region.as_ptr().expose_provenance()),
            size: 0x2000,
            ..blob(None)
        };
        let error = window.map(0, 0x2000, blob).unwrap_err();
        assert!(error.why.contains("in no file"), "{error}");
        window.relocate(0).unwrap();
    }
}
