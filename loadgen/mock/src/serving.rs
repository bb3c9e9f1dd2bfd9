//! From what a connection says to the answer on its way out.

use std::time::Duration;

use crate::behaviour::{KeepAlive, Writes};
use crate::connection::{Answer, Connection, ReadEnd};
use crate::pages::{Gauges, page};
use crate::request::{Asked, Generation, Parsed, Request, parse};
use crate::rules::fault_for;
use crate::script::{Order, Script, Then};
use crate::server::Server;
use crate::stats::Received;
use crate::templates::{error_json, response};

impl Server {
    /// Reads what came, and begins to answer it.
    pub(crate) fn read(&mut self, key: usize, may_be_closed: bool) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.read(&mut self.read_buffer, may_be_closed) {
            Ok(ReadEnd::Drained) => self.take_request(key),
            Ok(ReadEnd::Closed) | Err(_) => self.abandon(key),
        }
    }

    /// Writes what a connection would not take before.
    pub(crate) fn flush(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.flush().is_err() {
            self.abandon(key);
        } else if connection.is_closing && connection.is_flushed() {
            self.connections.remove(key);
        }
    }

    /// A deadline of this connection has come.
    pub(crate) fn come_back(&mut self, key: usize) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.answer.is_some() {
            self.play(key);
        } else {
            // Idle for as long as it may be.
            self.connections.remove(key);
        }
    }

    /// Begins to answer the next request, if it is there and none is being answered.
    fn take_request(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.answer.is_some() || connection.is_closing || connection.inbox.is_empty() {
            return;
        }
        let (script, keeps_alive, is_generation) = match parse(&connection.inbox) {
            Parsed::Partial => return,
            Parsed::Bad(status, message) => {
                let body = error_json(status, message);
                let bytes = response(status, "application/json", "", body.as_bytes(), false);
                (Script::at_once(bytes, Then::Close), false, false)
            }
            Parsed::Whole(request, length) => {
                connection.consume(length);
                connection.requests += 1;
                let keeps_alive = !request.is_last
                    && promises_more(self.force.behaviour.keep_alive, connection.requests);
                let is_generation = matches!(request.asked, Asked::Generation(_));
                let script = self.script(key, request, keeps_alive);
                (script, keeps_alive, is_generation)
            }
        };
        self.tally.stats.running += u64::from(is_generation);
        let since_ns = self.served_ns();
        let due_ns = script.due_ns();
        self.connections[key].answer = Some(Answer {
            script,
            since_ns,
            keeps_alive,
            is_generation,
            is_bytewise: self.force.behaviour.events.writes == Writes::Bytes,
        });
        if due_ns == 0 {
            self.play(key);
        } else {
            self.set_deadline(key, since_ns.saturating_add(due_ns));
        }
    }

    fn script(&mut self, key: usize, request: Request, keeps_alive: bool) -> Script {
        match request.asked {
            Asked::Generation(asked) => {
                let headers = (request.path, request.authorization);
                self.generation(key, asked, headers, keeps_alive)
            }
            asked => {
                let stats = self.stats();
                let gauges = Gauges {
                    stats: &stats,
                    model: &self.force.behaviour.model,
                    prompt_tokens: self.prompt_tokens,
                };
                Script::at_once(page(&asked, &gauges, keeps_alive), Then::Finish)
            }
        }
    }

    /// Decides how a request for completions is answered, and remembers it.
    fn generation(
        &mut self,
        key: usize,
        mut asked: Generation,
        (path, authorization): (String, Option<String>),
        keeps_alive: bool,
    ) -> Script {
        let now_ns = self.now_ns();
        let connection = &self.connections[key];
        let is_reused = connection.requests > 1;
        self.force.requests += 1;
        self.tally.stats.requests += 1;
        self.tally.stats.requests_reused += u64::from(is_reused);
        let force = &self.force;
        let order = Order {
            behaviour: &force.behaviour,
            templates: if asked.is_chat {
                &force.chat
            } else {
                &force.completions
            },
            asked: &asked,
            fault: fault_for(&force.behaviour, force.requests, force.age(now_ns)),
            keeps_alive,
        };
        let script = order.script();
        let prompt_tokens = order.prompt_tokens();
        let fault = order.fault.cloned();
        self.prompt_tokens += u64::from(prompt_tokens);
        let body = std::mem::take(&mut asked.body);
        self.received.push(Received {
            at: Duration::from_nanos(now_ns),
            connection: connection.number,
            is_reused,
            path,
            authorization,
            prompt_hash: asked.prompt_hash,
            prompt_tokens,
            max_tokens: asked.max_tokens,
            is_streamed: asked.is_streamed,
            fault,
            body: force.behaviour.keeps_bodies.then_some(body),
        });
        script
    }

    /// Writes the steps of an answer that are due.
    fn play(&mut self, key: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            let Some(answer) = connection.answer.as_mut() else {
                return;
            };
            let due_ns = answer.since_ns.saturating_add(answer.script.due_ns());
            let now_ns = self.served_ns();
            if now_ns < due_ns {
                return self.set_deadline(key, due_ns);
            }
            let Some(then) = self.write_step(key, due_ns) else {
                return self.abandon(key);
            };
            match then {
                Then::Continue => {}
                Then::Finish => return self.finish(key),
                Then::Close => return self.end(key, false),
                Then::Reset => return self.end(key, true),
                // The answer stays in progress, and nothing comes back to it.
                Then::Silence => return,
            }
        }
    }

    /// Writes one step. `None` if the client is gone.
    fn write_step(&mut self, key: usize, due_ns: u64) -> Option<Then> {
        let connection = &mut self.connections[key];
        let answer = connection.answer.as_mut()?;
        self.out.clear();
        let (tokens, then) = answer.script.step(&mut self.out);
        let is_bytewise = answer.is_bytewise;
        connection.send(&self.out, is_bytewise).ok()?;
        let is_flushed = connection.is_flushed();
        if !self.out.is_empty() {
            // What the step itself takes counts as lateness as well.
            let late_ns = self.served_ns() - due_ns;
            self.tally.wrote(late_ns);
            self.tally.stats.tokens += u64::from(tokens);
        }
        if !is_flushed {
            self.watch_for_room(key);
        }
        Some(then)
    }

    /// An answer is out, and the connection may carry the next.
    fn finish(&mut self, key: usize) {
        let keep_alive = self.force.behaviour.keep_alive;
        let Some(answer) = self.answered(key) else {
            return;
        };
        let requests = self.connections[key].requests;
        let is_cut = matches!(keep_alive, KeepAlive::RequestsUnannounced(most) if requests >= most);
        if !answer.keeps_alive || is_cut {
            return self.close(key);
        }
        if let KeepAlive::Idle(longest) = keep_alive {
            let longest_ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
            self.set_deadline(key, self.served_ns().saturating_add(longest_ns));
        }
        self.take_request(key);
    }

    /// An answer is out, and so is the connection's life.
    fn end(&mut self, key: usize, is_reset: bool) {
        if self.answered(key).is_none() {
            return;
        }
        if is_reset {
            self.connections.remove(key).reset_on_close();
        } else {
            self.close(key);
        }
    }

    /// Counts an answer that went out as it was meant to.
    fn answered(&mut self, key: usize) -> Option<Answer> {
        let answer = self.connections.get_mut(key)?.answer.take()?;
        self.tally.stats.answers += u64::from(answer.is_generation);
        self.tally.stats.running -= u64::from(answer.is_generation);
        Some(answer)
    }

    /// Closes in order: after what is still to go out.
    fn close(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if connection.is_flushed() {
            self.connections.remove(key);
        } else {
            connection.is_closing = true;
        }
    }

    /// The client is gone, or cannot be written to any more.
    fn abandon(&mut self, key: usize) {
        let Some(connection) = self.connections.try_remove(key) else {
            return;
        };
        self.gone(&connection);
    }

    /// Counts what a connection that is gone had in progress.
    pub(crate) fn gone(&mut self, connection: &Connection) {
        let is_generating = u64::from(connection.is_generating());
        self.tally.stats.abandoned += is_generating;
        self.tally.stats.running -= is_generating;
    }
}

/// Whether the answer to the n-th request leaves the connection open for another, as far as it says.
fn promises_more(keep_alive: KeepAlive, requests: u32) -> bool {
    match keep_alive {
        KeepAlive::Never => false,
        KeepAlive::Requests(most) => requests < most,
        KeepAlive::Always | KeepAlive::RequestsUnannounced(_) | KeepAlive::Idle(_) => true,
    }
}
