// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another user of the host.

use std::ffi::CString;
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{User as Account, initgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use thiserror::Error;

/// A user of the host to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(Account);

/// A user that cannot be become.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("Cannot become user '{name}'; root can")]
pub struct UserError {
    /// Their name.
    pub name: String,
    /// What the host said.
    #[source]
    pub source: Errno,
}

impl FromStr for User {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match Account::from_name(name) {
            Ok(Some(account)) => Ok(Self(account)),
            Ok(None) => Err("there is no such user".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Becomes `user`, with the groups that they are in, by which a GPU's devices are reached, and no other; for good.
///
/// # Errors
/// Only root may.
pub fn become_user(user: &User) -> Result<(), UserError> {
    let Account { name, uid, gid, .. } = &user.0;
    let known = CString::new(name.as_str()).map_err(|_| Errno::EINVAL);
    known
        .and_then(|known| initgroups(&known, *gid))
        .and_then(|()| setresgid(*gid, *gid, *gid))
        .and_then(|()| setresuid(*uid, *uid, *uid))
        // Who changed users has /proc/self as root's, until its next program; its namespace is set up through that.
        .and_then(|()| {
            let behavior = set_dumpable_behavior(DumpableBehavior::Dumpable);
            behavior.map_err(|error| Errno::from_raw(error.raw_os_error()))
        })
        .map_err(|source| UserError {
            name: name.clone(),
            source,
        })
}
