// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory, as a VMM maps and unmaps it.

#![expect(
    unsafe_code,
    reason = "mappings, and regions and guards that must not outlive them, kept beside each other"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Error as IoError;
use std::mem;
use std::os::fd::OwnedFd;
use std::ptr::null_mut;
use std::sync::{Arc, Weak};

use host_util::foreign::ForeignFile;
use host_util::log_source::VMM;
use rpds::RedBlackTreeMapSync;
use rustix::fs::{OFlags, fcntl_get_seals, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use crate::fault::{Guard, losses};
use crate::limits::{MAX_DMA_MAPS, PAGE_SIZE};
use crate::wire::{DmaMap, DmaUnmap};

/// A guest without a vIOMMU has no more ranges than this.
const FEW: usize = 16;

/// What a device may reach of its guest's memory at one moment.
///
/// A value of it never changes. The next one, with a map more or less, shares all but a path of it: making it, cloning it
/// and looking an address up take time that grows with the logarithm of the number of maps. A guest behind a vIOMMU has
/// thousands.
#[derive(Clone, Debug, Default)]
pub struct DmaMemory {
    regions: RedBlackTreeMapSync<u64, Arc<GuestRegionMmap>>,
    /// The same, where there are few: a look-up there is several times as fast.
    few: Option<GuestMemoryMmap>,
}

impl DmaMemory {
    fn new(regions: RedBlackTreeMapSync<u64, Arc<GuestRegionMmap>>) -> Self {
        let few = (regions.size() <= FEW).then(|| {
            let regions = regions.values().cloned().collect();
            // Sorted, and checked not to overlap.
            GuestMemoryMmap::from_arc_regions(regions).unwrap_or_default()
        });
        Self { regions, few }
    }
}

/// It takes time that grows with the square of the number of regions.
impl From<GuestMemoryMmap> for DmaMemory {
    fn from(mut memory: GuestMemoryMmap) -> Self {
        let ranges = memory.iter().map(|it| (it.start_addr(), it.len()));
        let mut regions = RedBlackTreeMapSync::default();
        for (start, size) in ranges.collect::<Vec<_>>() {
            if let Ok((rest, region)) = memory.remove_region(start, size) {
                regions.insert_mut(start.0, region);
                memory = rest;
            }
        }
        Self::new(regions)
    }
}

impl GuestMemoryBackend for DmaMemory {
    type R = GuestRegionMmap;

    fn num_regions(&self) -> usize {
        self.regions.size()
    }

    fn find_region(&self, address: GuestAddress) -> Option<&GuestRegionMmap> {
        if let Some(few) = &self.few {
            return few.find_region(address);
        }
        let (_, region) = self.regions.range(..=address.0).next_back()?;
        (address <= region.last_addr()).then_some(region.as_ref())
    }

    fn iter(&self) -> impl Iterator<Item = &GuestRegionMmap> {
        self.regions.values().map(AsRef::as_ref)
    }
}

/// Why a request about memory was refused. The client gets the errno, the log the sentence.
#[derive(Debug, Error)]
pub(crate) enum MapError {
    #[error(
        "it has no file; if it is the guest's RAM, start the VMM with it in one (QEMU: -object memory-backend-memfd,share=on)"
    )]
    NoFile,
    #[error(
        "a range of {PAGE_SIZE}-byte pages is asked for, that ends before the address space does"
    )]
    Alignment,
    #[error("it is neither readable nor writeable")]
    NoAccess,
    #[error("it overlaps what is mapped already")]
    Overlap,
    #[error("{MAX_DMA_MAPS} ranges are mapped already")]
    TooMany,
    #[error("its file ends before it does")]
    TooShort,
    #[error("its file is neither a memfd nor on tmpfs or hugetlbfs")]
    NotMemory,
    #[error("it begins or ends within a range that was mapped as one")]
    Partial,
    #[error("the system refuses: {0}")]
    System(#[from] IoError),
}

impl MapError {
    pub(crate) fn errno(&self) -> Errno {
        match self {
            // What QEMU prints of this is "Bad file descriptor".
            Self::NoFile => Errno::BADF,
            Self::Overlap => Errno::EXIST,
            Self::TooMany => Errno::NOSPC,
            Self::TooShort => Errno::NXIO,
            Self::NotMemory => Errno::NODEV,
            Self::Alignment | Self::NoAccess | Self::Partial => Errno::INVAL,
            Self::System(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
        }
    }
}

/// What a map or an unmap did to what the device may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryChange {
    /// Something was added; what the device had stays as it was.
    Added {
        /// It lies between this guest address
        first: u64,
        /// and this one, both included.
        last: u64,
    },
    /// Something was taken away, and must not be touched once the device has answered.
    Removed {
        /// It lies between this guest address
        first: u64,
        /// and this one, both included.
        last: u64,
    },
}

/// A map.
#[derive(Debug)]
struct Mapped {
    size: u64,
    /// None for memory without a file that is read only, as ROMs are: the device cannot reach it, and need not.
    memory: Option<Backing>,
}

/// A map as this process has it. The fields are dropped in this order.
#[derive(Debug)]
struct Backing {
    guard: Guard,
    region: Arc<GuestRegionMmap>,
    _mapping: Mapping,
}

/// Pages of a file, whole ones: of a file of huge pages no less can be mapped, nor replaced when it faults.
#[derive(Debug)]
struct Mapping {
    start: *mut u8,
    size: usize,
}

// SAFETY: It is a range of addresses, which belongs to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps what a map asks for, from the beginning of its first page to the end of its last. Returns also how many bytes
    /// into it the map begins.
    fn new(file: &MemoryFile, map: &DmaMap, protection: ProtFlags) -> Result<(Self, usize), Errno> {
        let inside = map.offset % file.page;
        let bytes =
            (inside.checked_add(map.size)).and_then(|it| it.checked_next_multiple_of(file.page));
        let size = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let size = size.ok_or(Errno::NOMEM)?;
        let inside = usize::try_from(inside).map_err(|_| Errno::NOMEM)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let offset = map.offset - map.offset % file.page;
        // SAFETY: It goes where the kernel finds room.
        let start = unsafe { mmap(null_mut(), size, protection, flags, &file.file, offset) }?;
        let start = start.cast();
        Ok((Self { start, size }, inside))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: It is this value's own mapping, and who has a region in it has given that up (`Backing`).
        let _unmapped = unsafe { munmap(self.start.cast(), self.size) };
    }
}

/// A file of memory that is as long as the map of it.
#[derive(Debug)]
struct MemoryFile {
    file: Arc<File>,
    /// Bytes of its pages, a power of two; tmpfs may name larger ones than it has.
    page: u64,
}

/// The maps of one VMM.
#[derive(Debug)]
pub(crate) struct DmaTable {
    maps: BTreeMap<u64, Mapped>,
    memory: DmaMemory,
    /// Taken away, and kept until nobody else has them: a region must not outlive its guard, nor a guard its region.
    retired: Vec<Backing>,
    wake: Arc<OwnedFd>,
    losses: u64,
    files: Files,
}

/// Files that are open already: a guest behind a vIOMMU has thousands of maps of one file, and each message brings a file
/// descriptor of its own.
#[derive(Debug, Default)]
struct Files(BTreeMap<FileIdentity, Weak<File>>);

/// Device and inode, which no other file has while it is open, and how it may be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileIdentity {
    device: u64,
    inode: u64,
    mode: u32,
}

impl Files {
    /// More of them are kept open each by itself.
    const MAX: usize = 64;

    /// The file that is open already, or this one.
    fn share(&mut self, file: File, identity: FileIdentity) -> Arc<File> {
        if let Some(open) = self.0.get(&identity).and_then(Weak::upgrade) {
            return open;
        }
        if self.0.len() >= Self::MAX {
            self.0.retain(|_, file| file.strong_count() > 0);
        }
        let file = Arc::new(file);
        if self.0.len() < Self::MAX {
            self.0.insert(identity, Arc::downgrade(&file));
        }
        file
    }
}

impl DmaTable {
    /// `wake`, an eventfd, is made readable when memory is lost.
    pub(crate) fn new(wake: Arc<OwnedFd>) -> Self {
        Self {
            maps: BTreeMap::new(),
            memory: DmaMemory::default(),
            retired: Vec::new(),
            wake,
            losses: losses(),
            files: Files::default(),
        }
    }

    pub(crate) fn memory(&self) -> &DmaMemory {
        &self.memory
    }

    /// Takes one map in, or none of it. Returns what the device can reach besides, if anything.
    pub(crate) fn map(
        &mut self,
        map: &DmaMap,
        file: Option<ForeignFile>,
    ) -> Result<Option<MemoryChange>, MapError> {
        let unaligned = !(map.address | map.size | map.offset).is_multiple_of(PAGE_SIZE);
        let end = map.address.checked_add(map.size);
        let (Some(end), false, 1..) = (end, unaligned, map.size) else {
            return Err(MapError::Alignment);
        };
        if !map.readable && !map.writeable {
            return Err(MapError::NoAccess);
        }
        let below = self.maps.range(..end).next_back();
        if below.is_some_and(|(&start, mapped)| start.saturating_add(mapped.size) > map.address) {
            return Err(MapError::Overlap);
        }
        if self.maps.len() + self.retired.len() >= MAX_DMA_MAPS {
            return Err(MapError::TooMany);
        }
        let memory = match file {
            Some(file) => {
                let file = check_file(file, map, &mut self.files)?;
                Some(self.back(map, file)?)
            }
            None if map.writeable => return Err(MapError::NoFile),
            None => None,
        };
        let reachable = memory.is_some();
        if let Some(backing) = &memory {
            let mut regions = self.memory.regions.clone();
            regions.insert_mut(map.address, backing.region.clone());
            self.memory = DmaMemory::new(regions);
        }
        let size = map.size;
        self.maps.insert(map.address, Mapped { size, memory });
        let (first, last) = (map.address, end.saturating_sub(1));
        Ok(reachable.then_some(MemoryChange::Added { first, last }))
    }

    fn back(&self, map: &DmaMap, file: MemoryFile) -> Result<Backing, MapError> {
        let system = |error| MapError::System(IoError::from(error));
        // A write to what the VMM lets us read only is a fault, and ends the connection.
        let protection = if map.writeable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let size = usize::try_from(map.size).map_err(|_| MapError::Alignment)?;
        let (mapping, inside) = Mapping::new(&file, map, protection).map_err(system)?;
        let start = mapping.start.wrapping_add(inside);
        let built = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::from_arc(file.file, map.offset))
            .with_mmap_prot(i32::try_from(protection.bits()).unwrap_or(0))
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: `size` bytes from `start` lie in the mapping, which is kept beside the region: the last to have the
        // region gives it up before the mapping (`Backing`, `sweep`, `Drop`).
        let built = unsafe { built.with_raw_mmap_pointer(start).build() };
        let region = built.map_err(|error| MapError::System(IoError::other(error)))?;
        let region = GuestRegionMmap::new(region, GuestAddress(map.address));
        let region = Arc::new(region.ok_or(MapError::Alignment)?);
        // SAFETY: The range is the whole mapping, which is given up after the guard, as above.
        let guard = unsafe { Guard::new(mapping.start.addr(), mapping.size, self.wake.clone()) }?;
        Ok(Backing {
            guard,
            region,
            _mapping: mapping,
        })
    }

    /// Takes away every map that lies in the range, as VFIO's type 1 does in its second version: a range without maps is
    /// no error, and one that cuts a map is, and changes nothing. Returns what the device can reach no more, if anything.
    pub(crate) fn unmap(&mut self, unmap: &DmaUnmap) -> Result<Option<MemoryChange>, MapError> {
        if unmap.all() {
            if unmap.address != 0 || unmap.size != 0 {
                return Err(MapError::Alignment);
            }
            let (first, last) = (0, u64::MAX);
            return Ok(self
                .clear()
                .then_some(MemoryChange::Removed { first, last }));
        }
        let unaligned = !(unmap.address | unmap.size).is_multiple_of(PAGE_SIZE);
        let last = unmap.size.checked_sub(1);
        let last = last.and_then(|length| unmap.address.checked_add(length));
        let Some(last) = last.filter(|_| !unaligned) else {
            return Err(MapError::Alignment);
        };
        let crosses = |(&start, mapped): (&u64, &Mapped), at: u64| {
            start < at && start.saturating_add(mapped.size) > at
        };
        let first = self.maps.range(..unmap.address).next_back();
        let final_one = self.maps.range(..=last).next_back();
        if first.is_some_and(|map| crosses(map, unmap.address))
            || final_one.is_some_and(|map| crosses(map, last.saturating_add(1)))
        {
            return Err(MapError::Partial);
        }
        let removed = self.take_away(unmap.address, last);
        let first = unmap.address;
        Ok(removed.then_some(MemoryChange::Removed { first, last }))
    }

    /// Takes everything away. Returns whether the device can reach less than before.
    pub(crate) fn clear(&mut self) -> bool {
        self.take_away(0, u64::MAX)
    }

    fn take_away(&mut self, first: u64, last: u64) -> bool {
        let mut regions = self.memory.regions.clone();
        let before = regions.size();
        while let Some((&start, _)) = self.maps.range(first..=last).next() {
            let backing = self.maps.remove(&start).and_then(|mapped| mapped.memory);
            self.retired.extend(backing);
            regions.remove_mut(&start);
        }
        let reachable = regions.size() < before;
        if reachable {
            self.memory = DmaMemory::new(regions);
        }
        reachable
    }

    /// Lets go of what nobody uses any longer.
    pub(crate) fn sweep(&mut self) {
        // Who has no reference cannot get one any more, as the table's own is the last.
        self.retired
            .retain(|backing| Arc::strong_count(&backing.region) > 1);
    }

    /// Whether bytes of this VMM's memory are no longer what they were; it is true once for each time.
    pub(crate) fn lost_memory(&mut self) -> bool {
        let losses = losses();
        if mem::replace(&mut self.losses, losses) == losses {
            return false;
        }
        let mapped = self
            .maps
            .values()
            .filter_map(|mapped| mapped.memory.as_ref());
        let mut all = mapped.chain(&self.retired);
        all.any(|backing| backing.guard.is_lost())
    }
}

impl Drop for DmaTable {
    fn drop(&mut self) {
        self.clear();
        self.memory = DmaMemory::default();
        self.sweep();
        if !self.retired.is_empty() {
            VMM.error(format_args!(
                "The device still holds {} ranges of memory of a VMM that left",
                self.retired.len()
            ));
            // They stay mapped and guarded until the process ends: a fault in them must find its guard.
            mem::forget(mem::take(&mut self.retired));
        }
    }
}

/// Only memory has pages at once: a page of a file on FUSE or on a network is there when its server pleases, and whoever
/// waits for it cannot be stopped; nor can who asks such a file for its size. Files of memory are told by having seals,
/// none set or not, which asks no file system: memfds, and all of tmpfs and hugetlbfs (fcntl(2), F_GET_SEALS).
fn check_file(file: ForeignFile, map: &DmaMap, files: &mut Files) -> Result<MemoryFile, MapError> {
    let is_memory = file
        .file()
        .is_some_and(|file| fcntl_get_seals(file).is_ok());
    if !is_memory {
        return Err(MapError::NotMemory);
    }
    let file = File::from(file.into_known().ok_or(MapError::NotMemory)?);
    let of = fstat(&file).map_err(IoError::from)?;
    let length = u64::try_from(of.st_size).unwrap_or(0);
    let end = map.offset.checked_add(map.size);
    if end.is_none_or(|end| end > length) {
        return Err(MapError::TooShort);
    }
    let page = u64::try_from(of.st_blksize).unwrap_or(0);
    if !page.is_power_of_two() {
        return Err(MapError::NotMemory);
    }
    let page = page.max(PAGE_SIZE);
    let mode = fcntl_getfl(&file).map_err(IoError::from)? & OFlags::ACCMODE;
    let identity = FileIdentity {
        device: of.st_dev,
        inode: of.st_ino,
        mode: mode.bits(),
    };
    let file = files.share(file, identity);
    Ok(MemoryFile { file, page })
}
