// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files, by Landlock.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use thiserror::Error;

use crate::mode::Missing;

/// The newest Landlock whose rules are all governed here: it has files, ioctls of devices, TCP, and who may be signalled.
/// An older kernel's governs what it knows.
const NEWEST: ABI = ABI::V6;

/// A path that a process must reach after it entered its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The path, with everything below it. One that does not exist is nothing to reach.
    pub path: PathBuf,
    /// What for.
    pub access: Access,
}

/// What a process may do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files and directories, and execute.
    Read,
    /// Read and write what is there; devices take ioctls.
    Use,
    /// Make, write, rename and remove ordinary files.
    Files,
    /// Remove what is no directory.
    Remove,
}

impl Access {
    fn flags(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => AccessFs::from_read(NEWEST),
            Self::Use => {
                AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev
            }
            Self::Files => {
                AccessFs::ReadDir
                    | AccessFs::ReadFile
                    | AccessFs::WriteFile
                    | AccessFs::MakeReg
                    | AccessFs::RemoveFile
                    | AccessFs::Truncate
            }
            Self::Remove => AccessFs::RemoveFile.into(),
        }
    }
}

/// Rules that Landlock does not take.
#[derive(Debug, Error)]
#[error("Landlock refuses its rules")]
pub struct FileError(#[from] RulesetError);

/// Of all files, the process reaches these alone from now on; it connects to nothing by TCP, nor to a socket that has a
/// name and no path, and signals only itself and what it starts.
pub(crate) fn restrict(reach: &[Reach]) -> Result<Vec<Missing>, FileError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for Reach { path, access } in reach {
        ruleset = ruleset.add_rules(path_beneath_rules([path], access.flags()))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => {
            let what = "no Landlock: every file of the user is within reach";
            let why = match status.landlock {
                LandlockStatus::NotEnabled => "it is not enabled",
                LandlockStatus::NotImplemented => "this kernel does not have it",
                LandlockStatus::Available { .. } => "none of its rules was taken",
            };
            vec![Missing::new(what, &why)]
        }
        RulesetStatus::PartiallyEnforced => {
            let what = "an old Landlock: it governs not all that it could";
            vec![Missing::new(what, &format!("{:?}", status.landlock))]
        }
        RulesetStatus::FullyEnforced => Vec::new(),
    })
}
