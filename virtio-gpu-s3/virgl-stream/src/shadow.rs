// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a context's streams have left behind.

use crate::codec::{Command, ResourceCreate, commands};
use crate::command::Effect;
use crate::context::Context;
use crate::loss::{Loss, Warning};
use crate::replay::Replay;
use crate::sub_context::SubContext;

/// What the streams of one context have left behind in the renderer.
#[derive(Clone, Debug)]
pub struct Shadow(State);

#[derive(Clone, Debug)]
enum State {
    Following(Box<Context>),
    /// It can never be made again. What it had is given back.
    Lost(Loss),
}

impl Default for Shadow {
    /// The shadow of a context that was just made.
    fn default() -> Self {
        Self(State::Following(Box::default()))
    }
}

impl Shadow {
    /// The renderer is given this stream, whole.
    pub fn feed(&mut self, stream: &[u32]) {
        if let State::Following(context) = &mut self.0
            && let Err(loss) = context.follow(stream)
        {
            self.lose(loss);
        }
    }

    /// The renderer refused a stream that was fed, or failed otherwise: nothing is known of the context any more.
    pub fn refused(&mut self) {
        self.lose(Loss::Refused);
    }

    /// There is no room for it any more.
    pub fn give_up(&mut self, most: u64) {
        let what = "bytes of state in all contexts";
        self.lose(Loss::TooMuch { what, most });
    }

    fn lose(&mut self, loss: Loss) {
        if let State::Following(_) = self.0 {
            self.0 = State::Lost(loss);
        }
    }

    /// A blob took what was made under that number, and this is what.
    pub fn take(&mut self, blob_id: u32) -> Option<ResourceCreate> {
        match &mut self.0 {
            State::Following(context) => context.take(blob_id),
            State::Lost(_) => None,
        }
    }

    /// A resource is gone, or the context may not use it any more.
    pub fn forget_resource(&mut self, id: u32) {
        if let State::Following(context) = &mut self.0 {
            context.forget_resource(id);
        }
    }

    /// Why the context cannot be made again, if it cannot. It may be later: a query ends, its result is fetched.
    pub fn loss(&self) -> Option<Loss> {
        match &self.0 {
            State::Following(context) => context.sub_contexts.values().find_map(SubContext::loss),
            State::Lost(loss) => Some(*loss),
        }
    }

    /// What will not be as it was, though no guest can tell that does not draw with what it destroyed.
    pub fn warnings(&self) -> Vec<Warning> {
        match &self.0 {
            State::Following(context) => {
                let all = context.sub_contexts.values();
                all.flat_map(SubContext::warnings).collect()
            }
            State::Lost(_) => Vec::new(),
        }
    }

    /// What it keeps, in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            State::Following(context) => context.bytes(),
            State::Lost(_) => 0,
        }
    }

    /// The commands that make the context again in a renderer where it was just made, and where its resources are.
    ///
    /// # Errors
    /// It cannot be made again.
    pub fn replay(&self) -> Result<Replay, Loss> {
        match (&self.0, self.loss()) {
            (_, Some(loss)) => Err(loss),
            (State::Lost(loss), None) => Err(*loss),
            (State::Following(context), None) => Replay::of(context),
        }
    }
}

impl Replay {
    /// Takes words that somebody kept for a replay's.
    ///
    /// # Errors
    /// They are no replay, or one of a context that cannot be made again.
    pub fn check(words: Vec<u32>) -> Result<(Self, Shadow), Loss> {
        for command in commands(&words) {
            let (at, Command { number, .. }) = command.map_err(|_| Loss::Truncated)?;
            let effect = number.info().ok_or(Loss::Unknown { number })?.effect;
            if matches!(effect, Effect::Action | Effect::Query | Effect::NoForm) {
                return Err(Loss::Malformed { number, at });
            }
        }
        let mut shadow = Shadow::default();
        shadow.feed(&words);
        match shadow.loss() {
            Some(loss) => Err(loss),
            None => Ok((Self::from_words(words), shadow)),
        }
    }
}
