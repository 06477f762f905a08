//! [`Channel`]: all connections as one source of inputs.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tandem_core::Status;
use tandem_core::input::{CommandId, Input, Source};
use tandem_core::status::{Answer, CheckItem, CommandError, Event, SourceHealth};
use tandem_wire::PORT_NAME;
use tandem_wire::message::ReplyTo;
use tandem_wire::reply::{ConfigureError, Configured, ErrorBody, ErrorLine};
use tokio::net::UnixStream;

use super::dispatcher::{Dispatcher, event_line, wall_clock};
use super::input::ChannelInput;
use super::peer::{Peer, Turn};
use super::session::Session;
use super::unix::{ChannelError, Listener};
use super::virtio::{AgentPort, PortFolders};
use crate::runtime::SOCKET_PATH;

/// Connections of the local socket at a time.
pub const MAX_CLIENTS: usize = 16;

/// Where the channel listens.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// Path of the unix socket for the local command line; `None` for no socket.
    pub socket: Option<PathBuf>,
    /// Name of the virtio-serial port; `None` for no port.
    pub port: Option<String>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            socket: Some(PathBuf::from(SOCKET_PATH)),
            port: Some(PORT_NAME.to_owned()),
        }
    }
}

/// All connections as one source of inputs. See the module's page.
#[derive(Debug)]
pub struct Channel {
    dispatcher: Dispatcher,
    listener: Option<Listener>,
    clients: Vec<Peer<UnixStream>>,
    port_name: Option<String>,
    port: Option<Peer<AgentPort>>,
    /// What the service was told of the port last.
    told: Option<Input>,
}

impl Channel {
    /// Serves the socket at that path, and the host's port. Call within a tokio runtime.
    ///
    /// # Errors
    /// If the socket can't be made, or another instance serves it. A port that is
    /// missing is no error: the first input says so.
    pub fn open(socket: &Path) -> Result<Self, ChannelError> {
        Self::with_options(ChannelOptions {
            socket: Some(socket.to_owned()),
            ..ChannelOptions::default()
        })
    }

    /// Serves what the options name.
    ///
    /// # Errors
    /// As [`Channel::open`].
    pub fn with_options(options: ChannelOptions) -> Result<Self, ChannelError> {
        let listener = options.socket.map(|path| Listener::bind(&path));
        let mut channel = Self {
            dispatcher: Dispatcher::default(),
            listener: listener.transpose()?,
            clients: Vec::new(),
            port_name: options.port,
            port: None,
            told: None,
        };
        channel.ports_changed();
        Ok(channel)
    }

    /// The next thing that is wanted. Cancel-safe: nothing is lost if the future
    /// is dropped. It also carries out all reading and writing, so it has to be
    /// awaited again after each call of the other methods.
    pub async fn next(&mut self) -> ChannelInput {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What `tandem-status` answers from now on. Costs nothing if the generation is
    /// the one already published; the status is serialised once, when it is asked for.
    pub fn publish(&mut self, status: &Status) {
        self.dispatcher.publish(status);
    }

    /// Answers a command. Ignored if its client has left.
    pub fn reply(&mut self, id: CommandId, result: Result<Answer, CommandError>) {
        self.answer(id, |session, to| match result {
            Ok(answer) => session.reply(answer, to),
            Err(error) => session.reply_error(error.into(), to.id),
        });
    }

    /// Answers a [`ChannelInput::Configure`]. Ignored if its client has left.
    pub fn configured(&mut self, id: CommandId, result: Result<Configured, ConfigureError>) {
        self.answer(id, |session, to| match result {
            Ok(configured) => session.reply(configured, to),
            Err(error) => session.reply_error(error.into(), to.id),
        });
    }

    /// Sends an event to all who subscribed.
    pub fn notify(&mut self, event: &Event) {
        let mut subscribed = self
            .sessions()
            .filter(|session| session.is_subscribed())
            .peekable();
        if subscribed.peek().is_none() {
            return;
        }
        let now = wall_clock();
        let line = event_line(event, now);
        subscribed.for_each(|session| session.out.push_event(line.clone(), now));
    }

    /// A virtio port came or went: opens the host's port if it is there now.
    pub fn ports_changed(&mut self) {
        let Some(name) = &self.port_name else {
            return;
        };
        if self.port.is_some() {
            return;
        }
        match AgentPort::open(&PortFolders::default(), name) {
            Ok(port) => {
                self.port = Some(Peer::new(port));
                self.tell_port();
            }
            Err(error) => self.tell_missing(error.to_string()),
        }
    }

    /// Reads only once all earlier inputs are taken, so that they stay few.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<ChannelInput> {
        if let Some(input) = self.dispatcher.inputs.pop_front() {
            return Poll::Ready(input);
        }
        let accepted = self.poll_accept(cx);
        let port = self.poll_port(cx);
        let clients = self.poll_clients(cx);
        if let Some(input) = self.dispatcher.inputs.pop_front() {
            return Poll::Ready(input);
        }
        if [accepted, port, clients].contains(&Turn::Again) {
            // Lets the service's other sources have their turn in between.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Turn {
        let Some(listener) = &mut self.listener else {
            return Turn::Idle;
        };
        let Poll::Ready(stream) = listener.poll_accept(cx) else {
            return Turn::Idle;
        };
        if self.clients.len() < MAX_CLIENTS {
            self.clients.push(Peer::new(stream));
        } else {
            refuse(stream);
        }
        Turn::Again
    }

    fn poll_clients(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut turn = Turn::Idle;
        let dispatcher = &mut self.dispatcher;
        self.clients
            .retain_mut(|client| match client.turn(cx, dispatcher) {
                Ok(Turn::Again) => {
                    turn = Turn::Again;
                    true
                }
                Ok(Turn::Idle) => !client.is_done(),
                Err(error) => {
                    tracing::debug!(%error, "a local connection broke off");
                    false
                }
            });
        turn
    }

    fn poll_port(&mut self, cx: &mut Context<'_>) -> Turn {
        let Some(port) = &mut self.port else {
            return Turn::Idle;
        };
        match port.turn(cx, &mut self.dispatcher) {
            Ok(turn) => {
                self.tell_port();
                turn
            }
            Err(error) => {
                self.port = None;
                self.tell_missing(format!("the virtio-serial port is gone: {error}"));
                Turn::Idle
            }
        }
    }

    fn tell_port(&mut self) {
        let (Some(port), Some(name)) = (&self.port, &self.port_name) else {
            return;
        };
        let detail = if port.transport.hung_up() {
            "nobody on the host has it open"
        } else {
            "the host has it open"
        };
        let part = CheckItem {
            name: name.clone(),
            ok: true,
            detail: detail.to_owned(),
        };
        self.tell(SourceHealth::Working, vec![part]);
    }

    fn tell_missing(&mut self, reason: String) {
        self.tell(SourceHealth::Missing { reason }, Vec::new());
    }

    /// Tells the service, unless it knows.
    fn tell(&mut self, health: SourceHealth, parts: Vec<CheckItem>) {
        let news = Input::SourceHealth {
            source: Source::Channel,
            health,
            parts,
        };
        if self.told.as_ref() != Some(&news) {
            self.told = Some(news.clone());
            let inputs = &mut self.dispatcher.inputs;
            inputs.push_back(ChannelInput::Input(news));
        }
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        let clients = self.clients.iter_mut().map(|client| &mut client.session);
        clients.chain(self.port.iter_mut().map(|port| &mut port.session))
    }

    fn answer(&mut self, id: CommandId, reply: impl FnOnce(&mut Session, ReplyTo)) {
        let open = self
            .sessions()
            .find_map(|session| session.close(id).map(|to| (session, to)));
        if let Some((session, to)) = open {
            reply(session, to);
        }
    }
}

/// Says why and hangs up. A client that doesn't take even this much misses the reason.
fn refuse(stream: UnixStream) {
    let error = ErrorBody::generic(format!(
        "{MAX_CLIENTS} local clients are connected, which is the limit; end one of them"
    ));
    let line = ErrorLine { error, id: None }.to_line();
    let written = rustix::io::write(&stream, &line);
    tracing::debug!(?written, "a local connection was refused: too many");
}
