// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The folder of the series: `series`, which names the base and the parts in their order, and a folder for each part
//! with its patches and the text of its cover letter.

use std::fs;
use std::io::Error as IoError;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::names::{NameError, PartName};
use crate::patch::{MAX_PATCH, Patch, PatchError};

/// The text of a part's cover letter.
pub const COVER: &str = "cover.txt";
const SERIES: &str = "series";
const SUFFIX: &str = ".patch";

/// What is wrong with the folder. Names are relative to it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Something cannot be read.
    #[error("{name} cannot be read")]
    Read {
        /// What.
        name: String,
        /// Why.
        #[source]
        source: IoError,
    },
    /// Something cannot be written.
    #[error("{name} cannot be written")]
    Write {
        /// What.
        name: String,
        /// Why.
        #[source]
        source: IoError,
    },
    /// A line of `series` says nothing.
    #[error(
        "series, line {line}: expected `base NAME COMMIT` once, or `PART [LINES [LINES_OF_A_PATCH]]`"
    )]
    SeriesLine {
        /// Which.
        line: usize,
    },
    /// A line of `series` is not a part's name.
    #[error("series, line {line}")]
    PartName {
        /// Which.
        line: usize,
        /// Why.
        #[source]
        source: NameError,
    },
    /// A part is named twice.
    #[error("series names {part} twice")]
    PartTwice {
        /// Which.
        part: PartName,
    },
    /// `series` does not say what the first part is based on.
    #[error("series has no line `base NAME COMMIT`")]
    NoBase,
    /// There is no such part.
    #[error("{part} is not a part of the series")]
    NoSuchPart {
        /// Which.
        part: PartName,
    },
    /// A part has no patches.
    #[error("{part} has no patches")]
    NoPatches {
        /// Which.
        part: PartName,
    },
    /// A folder has patches and is not in `series`.
    #[error("{name} has patches and is not in series")]
    Unlisted {
        /// Which.
        name: String,
    },
    /// Something else is among the patches.
    #[error("{name} is neither a patch nor {COVER}")]
    Stray {
        /// What.
        name: String,
    },
    /// A patch is not named after its place and title.
    #[error("{name} should be {expected}")]
    FileName {
        /// Which.
        name: String,
        /// After its place and title.
        expected: String,
    },
    /// A file is not text.
    #[error("{name} is not UTF-8")]
    NotUtf8 {
        /// Which.
        name: String,
    },
    /// A file is not a patch.
    #[error("{name}: {fault}")]
    Patch {
        /// Which.
        name: String,
        /// Why.
        fault: PatchError,
    },
}

/// What the first part is applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name for people, such as a tag.
    pub name: String,
    /// Its commit.
    pub commit: String,
}

/// A patch with its name.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its part and file, such as `s3/0001-title.patch`.
    pub name: String,
    /// What it says.
    pub patch: Patch,
}

/// How many lines of code a reviewer is to be asked to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In a part.
    pub part: Option<usize>,
    /// In each of its patches.
    pub patch: Option<usize>,
}

/// A part with its patches in order.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: PartName,
    /// How large it may be.
    pub limits: Limits,
    /// Its patches.
    pub patches: Vec<Stored>,
}

/// All that is stored.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the first part is applied to.
    pub base: Base,
    /// In the order in which they are applied.
    pub parts: Vec<Part>,
}

impl Series {
    /// The parts of these names in the order of the series; all of them if none is named.
    pub fn select(&self, names: &[PartName]) -> Result<Vec<&Part>, StoreError> {
        for name in names {
            if !self.parts.iter().any(|part| part.name == *name) {
                return Err(StoreError::NoSuchPart { part: name.clone() });
            }
        }
        let wanted = |part: &&Part| names.is_empty() || names.contains(&part.name);
        Ok(self.parts.iter().filter(wanted).collect())
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The folder at this path.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything in it, or the first thing that is wrong.
    pub fn load(&self) -> Result<Series, StoreError> {
        let (series, faults) = self.inspect()?;
        faults.into_iter().next().map_or(Ok(series), Err)
    }

    /// Everything in it that can be read, and everything that is wrong.
    pub fn inspect(&self) -> Result<(Series, Vec<StoreError>), StoreError> {
        let (base, names) = self.index()?;
        let mut faults = Vec::new();
        let mut parts = Vec::new();
        for (name, limits) in names {
            parts.push(self.part(name, limits, &mut faults)?);
        }
        self.find_unlisted(&parts, &mut faults)?;
        Ok((Series { base, parts }, faults))
    }

    /// The text of a part's cover letter.
    pub fn cover(&self, part: &PartName) -> Result<String, StoreError> {
        self.text(&format!("{part}/{COVER}"))
    }

    /// Puts these patches in the place of a part's, and the part at the end of the series if it is new. Says whether
    /// it was.
    pub fn replace(&self, part: &PartName, patches: &[Patch]) -> Result<bool, StoreError> {
        let (_, names) = self.index()?;
        let folder = self.root.join(part.as_str());
        fs::create_dir_all(&folder).map_err(|source| write_error(part.as_str(), source))?;
        let mut written = Vec::new();
        for (number, patch) in (1..).zip(patches) {
            let name = patch.file_name(number);
            self.write(&format!("{part}/{name}"), &patch.to_string())?;
            written.push(name);
        }
        for name in self.names(part.as_str())? {
            if name.ends_with(SUFFIX) && !written.contains(&name) {
                fs::remove_file(folder.join(&name))
                    .map_err(|source| write_error(&format!("{part}/{name}"), source))?;
            }
        }
        let new = !names.iter().any(|(name, _)| name == part);
        if new {
            let mut index = self.text(SERIES)?;
            if !index.ends_with('\n') {
                index.push('\n');
            }
            index.push_str(part.as_str());
            index.push('\n');
            self.write(SERIES, &index)?;
        }
        Ok(new)
    }

    fn index(&self) -> Result<(Base, Vec<(PartName, Limits)>), StoreError> {
        let text = self.text(SERIES)?;
        let mut base = None;
        let mut parts: Vec<(PartName, Limits)> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match text.split(' ').collect::<Vec<_>>().as_slice() {
                ["base", name, commit] if base.is_none() => {
                    base = Some(Base {
                        name: (*name).to_owned(),
                        commit: (*commit).to_owned(),
                    });
                }
                [part, sizes @ ..] if sizes.len() <= 2 => {
                    let part = part
                        .parse()
                        .map_err(|source| StoreError::PartName { line, source })?;
                    if parts.iter().any(|(other, _)| *other == part) {
                        return Err(StoreError::PartTwice { part });
                    }
                    let sizes: Result<Vec<usize>, _> = sizes.iter().map(|it| it.parse()).collect();
                    let sizes = sizes.map_err(|_| StoreError::SeriesLine { line })?;
                    let limits = Limits {
                        part: sizes.first().copied(),
                        patch: sizes.get(1).copied(),
                    };
                    parts.push((part, limits));
                }
                _ => return Err(StoreError::SeriesLine { line }),
            }
        }
        Ok((base.ok_or(StoreError::NoBase)?, parts))
    }

    fn part(
        &self,
        part: PartName,
        limits: Limits,
        faults: &mut Vec<StoreError>,
    ) -> Result<Part, StoreError> {
        let mut patches = Vec::new();
        for file in self.names(part.as_str())? {
            let name = format!("{part}/{file}");
            if file == COVER {
                continue;
            }
            if !file.ends_with(SUFFIX) {
                faults.push(StoreError::Stray { name });
                continue;
            }
            let expected_number = patches.len().saturating_add(1);
            match self.patch(&name) {
                Ok(patch) => {
                    let expected = patch.file_name(expected_number);
                    if file != expected {
                        faults.push(StoreError::FileName {
                            name: name.clone(),
                            expected,
                        });
                    }
                    patches.push(Stored { name, patch });
                }
                Err(fault) => faults.push(fault),
            }
        }
        if patches.is_empty() {
            faults.push(StoreError::NoPatches { part: part.clone() });
        }
        Ok(Part {
            name: part,
            limits,
            patches,
        })
    }

    fn patch(&self, name: &str) -> Result<Patch, StoreError> {
        Patch::parse(&self.text(name)?).map_err(|fault| StoreError::Patch {
            name: name.to_owned(),
            fault,
        })
    }

    fn find_unlisted(
        &self,
        parts: &[Part],
        faults: &mut Vec<StoreError>,
    ) -> Result<(), StoreError> {
        for name in self.names("")? {
            let listed = parts.iter().any(|part| part.name.as_str() == name);
            if !listed
                && self.root.join(&name).is_dir()
                && self.names(&name)?.iter().any(|file| file.ends_with(SUFFIX))
            {
                faults.push(StoreError::Unlisted { name });
            }
        }
        Ok(())
    }

    /// What is in one of its folders, in order.
    fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let read_error = |source| StoreError::Read {
            name: folder.to_owned(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(folder)).map_err(read_error)? {
            let name = entry.map_err(read_error)?.file_name();
            names.push(name.into_string().map_err(|name| StoreError::NotUtf8 {
                name: name.to_string_lossy().into_owned(),
            })?);
        }
        names.sort();
        Ok(names)
    }

    fn text(&self, name: &str) -> Result<String, StoreError> {
        let path = self.root.join(name);
        let read_error = |source| StoreError::Read {
            name: name.to_owned(),
            source,
        };
        let length = fs::metadata(&path).map_err(read_error)?.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_PATCH {
            return Err(StoreError::Patch {
                name: name.to_owned(),
                fault: PatchError::TooLarge { length },
            });
        }
        let bytes = fs::read(path).map_err(read_error)?;
        String::from_utf8(bytes).map_err(|_| StoreError::NotUtf8 {
            name: name.to_owned(),
        })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        fs::write(self.root.join(name), text).map_err(|source| write_error(name, source))
    }
}

fn write_error(name: &str, source: IoError) -> StoreError {
    StoreError::Write {
        name: name.to_owned(),
        source,
    }
}
