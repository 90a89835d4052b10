// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another user of the host.

use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{User as Account, setgroups, setresgid, setresuid};
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

/// Becomes `user`, with their group and no other, for good.
///
/// # Errors
/// Only root may.
pub fn become_user(user: &User) -> Result<(), UserError> {
    let Account { name, uid, gid, .. } = &user.0;
    setgroups(&[*gid])
        .and_then(|()| setresgid(*gid, *gid, *gid))
        .and_then(|()| setresuid(*uid, *uid, *uid))
        .map_err(|source| UserError {
            name: name.clone(),
            source,
        })
}
