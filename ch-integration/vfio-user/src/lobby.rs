// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where clients wait: the handshake of each, and the one place at the device.
//!
//! A client that is silent, or stops within a message, keeps nobody out: whoever completes a handshake first gets the
//! place. Who completes one while a VMM is served is refused at once, in its VERSION's reply: EBUSY, which QEMU prints as
//! "version reply: Device or resource busy".

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::Error as IoError;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use host_util::peer::Peer;
use host_util::socket::{Accepted, Listener};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, read, write};

use crate::limits::{ADMISSION_TIME, HANDSHAKE_TIME, MAX_WAITING};
use crate::stream::{Message, Received, Stream, StreamError, is_hung_up, wait};
use crate::version::{self, Agreed};
use crate::waker::waker;
use crate::wire::{Header, HeaderError, Reply, Request, command, emit_error};
use host_util::log_source::VMM;

/// How long connections are left alone after the system could not take one, as when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A client whose handshake is done.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) stream: Stream,
    /// Bytes of data that a reply to it may have.
    pub(crate) max_data: u32,
}

/// The one place at the device.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Mutex<SeatState>,
    admitted: Condvar,
    /// An eventfd that wakes the lobby.
    wake: Arc<OwnedFd>,
}

#[derive(Debug)]
enum SeatState {
    Free,
    Offered(Admitted),
    /// With another handle of its socket, which tells whether it is still there.
    Taken(UnixStream),
    /// The last VMM is gone, and something of it is still in use.
    Leaving,
}

/// Whether a client can have the place.
enum Place {
    Free,
    Soon,
    Taken { peer: i32 },
}

impl Seat {
    pub(crate) fn new() -> Result<Self, IoError> {
        Ok(Self {
            state: Mutex::new(SeatState::Free),
            admitted: Condvar::new(),
            wake: waker()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a VMM.
    pub(crate) fn next(&self) -> Admitted {
        let mut state = self.lock();
        loop {
            match mem::replace(&mut *state, SeatState::Free) {
                SeatState::Offered(admitted) => {
                    *state = match admitted.stream.socket().try_clone() {
                        Ok(socket) => SeatState::Taken(socket),
                        // Without a second handle nobody can tell that it left before we do.
                        Err(_) => SeatState::Leaving,
                    };
                    return admitted;
                }
                other => *state = other,
            }
            state = self
                .admitted
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Its connection is over.
    pub(crate) fn vacate(&self) {
        *self.lock() = SeatState::Leaving;
    }

    /// Nothing of it is in use any more.
    pub(crate) fn leave(&self) {
        *self.lock() = SeatState::Free;
        // It does not block; full means that the lobby is awake.
        let _written = write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn place(&self) -> Place {
        match &*self.lock() {
            SeatState::Free => Place::Free,
            SeatState::Offered(admitted) => taken(admitted.stream.socket()),
            SeatState::Taken(socket) => taken(socket),
            SeatState::Leaving => Place::Soon,
        }
    }

    fn offer(&self, admitted: Admitted) {
        *self.lock() = SeatState::Offered(admitted);
        self.admitted.notify_one();
    }
}

/// Whoever has the place is on its way out once its end of the socket is closed, whether that was noticed or not.
fn taken(socket: &UnixStream) -> Place {
    if is_hung_up(socket) {
        return Place::Soon;
    }
    let peer = Peer::process_of(socket);
    Place::Taken { peer }
}

/// A client that is not let in yet.
#[derive(Debug)]
struct Client {
    stream: Stream,
    deadline: Instant,
    /// Its VERSION, once it is there and good.
    proposed: Option<Proposed>,
}

#[derive(Clone, Copy, Debug)]
struct Proposed {
    header: Header,
    agreed: Agreed,
}

/// What becomes of a client.
enum Verdict {
    Stays(Client),
    Admitted,
    Gone(String),
}

/// The clients that wait.
#[derive(Debug)]
pub(crate) struct Lobby {
    listener: Listener,
    seat: Arc<Seat>,
    clients: VecDeque<Client>,
    /// Until when no connection is taken.
    paused: Option<Instant>,
}

impl Lobby {
    pub(crate) fn new(listener: Listener, seat: Arc<Seat>) -> Result<Self, IoError> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            seat,
            clients: VecDeque::new(),
            paused: None,
        })
    }

    /// Takes connections for ever.
    pub(crate) fn run(&mut self) {
        loop {
            if self.wait() {
                self.accept();
            }
            for client in mem::take(&mut self.clients) {
                let peer = client.stream.peer();
                match self.look_at(client) {
                    Verdict::Stays(client) => self.clients.push_back(client),
                    Verdict::Admitted => {}
                    Verdict::Gone(why) => {
                        VMM.warn(format_args!("VMM {peer} was not let in: {why}"));
                    }
                }
            }
        }
    }

    /// Waits until there is something to do. Returns whether somebody may have connected.
    fn wait(&mut self) -> bool {
        let now = Instant::now();
        self.paused = self.paused.filter(|&until| until > now);
        let deadlines = self.clients.iter().map(|client| client.deadline);
        let deadline = deadlines.chain(self.paused).min();
        let mut fds = vec![PollFd::new(&*self.seat.wake, PollFlags::IN)];
        if self.paused.is_none() {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        // What a client with a good VERSION sends next is for the connection, but it may leave.
        let events = |client: &Client| match client.proposed {
            None => PollFlags::IN,
            Some(_) => PollFlags::RDHUP,
        };
        let clients = self.clients.iter();
        fds.extend(clients.map(|client| PollFd::new(&client.stream, events(client))));
        if let Err(error) = wait(&mut fds, deadline) {
            VMM.warn(format_args!("Cannot wait for connections: {error}"));
            self.paused = Some(Instant::now() + PAUSE);
            sleep(PAUSE);
            return false;
        }
        // Non-blocking, so it only says that there was nothing.
        let _drained = read(&*self.seat.wake, &mut [0; 8]);
        self.paused.is_none()
    }

    fn accept(&mut self) {
        match self.listener.accept().and_then(|accepted| match accepted {
            Accepted::Peer(socket) => Stream::new(socket).map(Ok),
            Accepted::Stranger(stranger) => Ok(Err(stranger)),
        }) {
            Ok(Err(Peer { process, user })) => {
                VMM.warn(format_args!(
                    "Process {process} of user {user} may not use the device"
                ));
            }
            Ok(Ok(stream)) => {
                if self.clients.len() >= MAX_WAITING {
                    self.clients.pop_front();
                    VMM.warn(format_args!(
                        "A client that waited longest was dropped for a new one"
                    ));
                }
                self.clients.push_back(Client {
                    stream,
                    deadline: Instant::now() + HANDSHAKE_TIME,
                    proposed: None,
                });
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {}
            Err(error) => {
                VMM.warn(format_args!("Cannot take a connection: {error}"));
                self.paused = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn look_at(&self, mut client: Client) -> Verdict {
        if client.proposed.is_none() {
            match client.stream.receive() {
                Ok(Received::Message(message)) => match propose(&message) {
                    Ok(proposed) => {
                        client.proposed = Some(proposed);
                        client.deadline = Instant::now() + ADMISSION_TIME;
                    }
                    Err(errno) => {
                        let why = format!("its VERSION is not one that we speak ({errno})");
                        return refuse(client, &message.header, errno, why);
                    }
                },
                Ok(Received::NotYet) => {}
                Ok(Received::End) => return Verdict::Gone("it left before its VERSION".into()),
                Err(error) => return refuse_broken(client, &error),
            }
        }
        let late = Instant::now() >= client.deadline;
        match (client.proposed, self.seat.place()) {
            (None, _) if late => {
                Verdict::Gone(format!("it sent no VERSION within {HANDSHAKE_TIME:?}"))
            }
            (None, _) => Verdict::Stays(client),
            (Some(proposed), Place::Free) => self.admit(client, proposed),
            (Some(_), Place::Soon) if is_hung_up(client.stream.socket()) => {
                Verdict::Gone("it left before the device was free".into())
            }
            (Some(_), Place::Soon) if !late => Verdict::Stays(client),
            (Some(proposed), Place::Soon) => {
                let why = "what the last VMM left behind is still in use".into();
                refuse(client, &proposed.header, Errno::BUSY, why)
            }
            (Some(proposed), Place::Taken { peer }) => {
                let why = format!("the device is in use by VMM {peer}");
                refuse(client, &proposed.header, Errno::BUSY, why)
            }
        }
    }

    fn admit(&self, client: Client, proposed: Proposed) -> Verdict {
        let Client { mut stream, .. } = client;
        let json = version::ours();
        let reply = Reply::Version {
            minor: proposed.agreed.minor,
            json: json.as_bytes(),
        };
        if let Err(error) = stream.send(reply.emit(&proposed.header)) {
            return Verdict::Gone(error.to_string());
        }
        let max_data = proposed.agreed.max_data;
        self.seat.offer(Admitted { stream, max_data });
        Verdict::Admitted
    }
}

/// Reads a client's first message.
fn propose(message: &Message) -> Result<Proposed, Errno> {
    let Message {
        header,
        body,
        files,
        too_many_files,
    } = message;
    if header.command != command::VERSION || !files.is_empty() || *too_many_files {
        return Err(Errno::INVAL);
    }
    let Request::Version { major, minor, json } = Request::parse(header.command, body)? else {
        return Err(Errno::INVAL);
    };
    let agreed = version::accept(major, minor, json)?;
    let header = *header;
    Ok(Proposed { header, agreed })
}

/// Tells a client why, as far as its socket takes it, and closes.
fn refuse(mut client: Client, header: &Header, errno: Errno, why: String) -> Verdict {
    // Its socket is empty, so it takes these 16 bytes; if not, the end of the connection says as much.
    let _sent = client.stream.send(emit_error(header, errno));
    Verdict::Gone(why)
}

fn refuse_broken(client: Client, error: &StreamError) -> Verdict {
    let why = error.to_string();
    match *error {
        StreamError::Header(HeaderError::Size { id, command, .. }) => {
            let header = Header {
                id,
                command,
                body: 0,
                no_reply: false,
            };
            refuse(client, &header, Errno::MSGSIZE, why)
        }
        _ => Verdict::Gone(why),
    }
}
