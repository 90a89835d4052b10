// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the VMM's memory regions the renderer's process has mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vm_memory::FileOffset;

/// A region is mapped while a resource's backing lies in it, so that the renderer holds on to no memory that the VMM
/// took away. A guest behind a vIOMMU has a region a page, so no step looks at all of them.
#[derive(Debug, Default)]
pub(super) struct Regions {
    last: u32,
    mapped: BTreeMap<u32, Mapped>,
    by_place: BTreeMap<Place, u32>,
    of_resource: BTreeMap<u32, BTreeSet<u32>>,
    unused: BTreeSet<u32>,
}

/// A file, where in it a region begins, and how long it is. The file is open here as long as the region is in the table,
/// so no other one can have its address.
type Place = (usize, u64, u64);

fn place(file: &FileOffset, size: u64) -> Place {
    (Arc::as_ptr(file.arc()).addr(), file.start(), size)
}

#[derive(Debug)]
struct Mapped {
    file: FileOffset,
    size: u64,
    resources: usize,
}

impl Regions {
    /// The number of a region that is mapped.
    pub(super) fn find(&self, file: &FileOffset, size: u64) -> Option<u32> {
        self.by_place.get(&place(file, size)).copied()
    }

    /// The number for a region that is to be mapped. None is given twice to one process that maps less than 2^32.
    pub(super) fn next(&self) -> u32 {
        self.last.wrapping_add(1)
    }

    /// The region with that number is mapped.
    pub(super) fn add(&mut self, size: u64, file: &FileOffset) -> u32 {
        self.last = self.next();
        let mapped = Mapped {
            file: file.clone(),
            size,
            resources: 0,
        };
        self.by_place.insert(place(file, size), self.last);
        self.mapped.insert(self.last, mapped);
        self.unused.insert(self.last);
        self.last
    }

    /// A resource's backing lies in these from now on.
    pub(super) fn begin(&mut self, resource_id: u32, regions: BTreeSet<u32>) {
        for id in &regions {
            if let Some(mapped) = self.mapped.get_mut(id) {
                mapped.resources = mapped.resources.saturating_add(1);
                self.unused.remove(id);
            }
        }
        self.of_resource.insert(resource_id, regions);
    }

    /// A resource has no backing any more.
    pub(super) fn end(&mut self, resource_id: u32) {
        for id in self.of_resource.remove(&resource_id).unwrap_or_default() {
            if let Some(mapped) = self.mapped.get_mut(&id) {
                mapped.resources = mapped.resources.saturating_sub(1);
                if mapped.resources == 0 {
                    self.unused.insert(id);
                }
            }
        }
    }

    /// Takes a region out that no resource needs.
    pub(super) fn take_unused(&mut self) -> Option<u32> {
        let id = self.unused.pop_first()?;
        if let Some(Mapped { file, size, .. }) = self.mapped.remove(&id) {
            self.by_place.remove(&place(&file, size));
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn file() -> FileOffset {
        FileOffset::new(File::open("/dev/null").unwrap(), 0)
    }

    #[test]
    fn a_region_stays_as_long_as_a_resource_needs_it() {
        let mut regions = Regions::default();
        let file = file();
        let id = regions.add(4096, &file);
        regions.begin(1, [id].into());
        regions.begin(2, [id].into());
        assert_eq!(regions.find(&file, 4096), Some(id));
        regions.end(1);
        regions.end(1);
        assert_eq!(regions.take_unused(), None);
        regions.end(2);
        assert_eq!(regions.take_unused(), Some(id));
        assert_eq!(regions.find(&file, 4096), None);
    }

    #[test]
    fn the_same_file_mapped_anew_is_another_region() {
        let mut regions = Regions::default();
        let first = file();
        let id = regions.add(4096, &first);
        assert_eq!(regions.find(&file(), 4096), None);
        assert_eq!(regions.find(&first, 8192), None);
        assert_eq!(regions.find(&first, 4096), Some(id));
    }
}
