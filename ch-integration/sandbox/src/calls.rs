// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! System calls, by seccomp.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BackendError, BpfProgram, Error as SeccompError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};
use thiserror::Error;

use crate::mode::{Missing, Mode};

/// A system call that a process may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number on this architecture.
    pub number: i64,
    /// Whether it may always, sometimes, or only ask.
    pub verdict: Verdict,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allowed,
    /// It is made if all of one of these hold, and is otherwise as one that was not declared.
    AllowedIf(Vec<Vec<Argument>>),
    /// It fails with this error: a library tries, and lives without.
    Refused(i32),
}

/// A condition on an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// From 0.
    pub index: u8,
    /// What must hold of its low 32 bits: what Linux looks at where an argument is an int.
    pub test: Test,
}

/// What must hold of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is this.
    Is(u32),
    /// It is not this.
    IsNot(u32),
    /// All of these bits are set.
    Has(u32),
    /// None of these bits is.
    Lacks(u32),
}

/// A filter that cannot be made or set.
#[derive(Debug, Error)]
pub enum CallError {
    /// It makes no sense.
    #[error("The list of system calls makes no filter")]
    List(#[source] BackendError),
}

fn condition(argument: &Argument) -> Result<SeccompCondition, BackendError> {
    let (operator, value) = match argument.test {
        Test::Is(value) => (SeccompCmpOp::Eq, value),
        Test::IsNot(value) => (SeccompCmpOp::Ne, value),
        Test::Has(bits) => (SeccompCmpOp::MaskedEq(bits.into()), bits),
        Test::Lacks(bits) => (SeccompCmpOp::MaskedEq(bits.into()), 0),
    };
    SeccompCondition::new(
        argument.index,
        SeccompCmpArgLen::Dword,
        operator,
        value.into(),
    )
}

fn rules(verdict: &Verdict) -> Result<Vec<SeccompRule>, BackendError> {
    let Verdict::AllowedIf(either) = verdict else {
        return Ok(Vec::new());
    };
    let rule = |all: &Vec<Argument>| {
        SeccompRule::new(all.iter().map(condition).collect::<Result<_, _>>()?)
    };
    either.iter().map(rule).collect()
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, CallError> {
    let architecture = ARCH.try_into().map_err(CallError::List)?;
    let filter = SeccompFilter::new(rules, otherwise, action, architecture);
    filter.and_then(TryInto::try_into).map_err(CallError::List)
}

/// The filters that `calls` make: one that refuses, for each error, and the last, that allows. The kernel asks all and
/// takes the strictest word.
pub(crate) fn programs(
    calls: &[Call],
    otherwise: SeccompAction,
) -> Result<Vec<BpfProgram>, CallError> {
    let mut refused: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    let mut allowed = BTreeMap::new();
    for call in calls {
        if let Verdict::Refused(error) = call.verdict {
            refused
                .entry(error)
                .or_default()
                .insert(call.number, Vec::new());
        }
        allowed.insert(call.number, rules(&call.verdict).map_err(CallError::List)?);
    }
    let mut programs = Vec::new();
    for (error, rules) in refused {
        let action = SeccompAction::Errno(error.unsigned_abs());
        programs.push(program(rules, SeccompAction::Allow, action)?);
    }
    programs.push(program(allowed, otherwise, SeccompAction::Allow)?);
    Ok(programs)
}

/// Sets the filters for the calling thread, and what it starts.
pub(crate) fn restrict(calls: &[Call], mode: Mode) -> Result<Vec<Missing>, CallError> {
    let otherwise = match mode {
        Mode::Log => SeccompAction::Log,
        Mode::On | Mode::Off => SeccompAction::Trap,
    };
    for program in programs(calls, otherwise)? {
        // Each further one may not be set by who could not set the first.
        if let Err(error) = apply_filter(&program) {
            return Ok(vec![unavailable(&error)]);
        }
    }
    Ok(Vec::new())
}

fn unavailable(error: &SeccompError) -> Missing {
    Missing::new("no seccomp: every system call can be made", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_with_different_errors_has_a_filter_for_each() {
        let call = |number, verdict| Call { number, verdict };
        let calls = [
            call(libc::SYS_read, Verdict::Allowed),
            call(libc::SYS_clone3, Verdict::Refused(libc::ENOSYS)),
            call(libc::SYS_socket, Verdict::Refused(libc::EACCES)),
            call(libc::SYS_connect, Verdict::Refused(libc::EACCES)),
        ];
        let made = programs(&calls, SeccompAction::Trap).unwrap();
        assert_eq!(made.len(), 3);
    }

    #[test]
    fn a_rule_without_a_condition_is_an_error() {
        let empty = Call {
            number: libc::SYS_read,
            verdict: Verdict::AllowedIf(vec![Vec::new()]),
        };
        let made = programs(&[empty], SeccompAction::Trap);
        assert!(matches!(
            made,
            Err(CallError::List(BackendError::EmptyRule))
        ));
    }
}
