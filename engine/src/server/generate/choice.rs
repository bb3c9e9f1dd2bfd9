//! One answer: its tokens as they come, and the text that they make.

use std::sync::Arc;

use crate::generation::{Event, FinishReason, GenerationError};
use crate::sampling::{Logprobs, Sampled};
use crate::server::error::ApiError;
use crate::server::request::options::Options;
use crate::text::{Detokenizer, StopStrings, Tokenizer};

/// What an answer grows by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    /// Which answer, from 0.
    pub(crate) index: usize,
    /// Text that will not change any more.
    pub(crate) text: String,
    /// The tokens generated; their text may come with a later piece, or never.
    pub(crate) tokens: Vec<u32>,
    /// A place for each token, those of an echoed prompt before them, if log-probabilities are wanted.
    pub(crate) places: Vec<Place>,
    /// If it is the last piece: why.
    pub(crate) finish: Option<Finish>,
}

/// A token of an answer, and how likely it was; that of a prompt's first token is not known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) token: u32,
    pub(crate) logprobs: Option<Logprobs>,
}

/// Why an answer is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// A stop string, a stop token of the request, or the model's end (`None`).
    Stop(Option<StopReason>),
    /// As many tokens as asked for.
    Length,
}

/// What ended an answer, where the request said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    Text(String),
    Token(u32),
}

/// The state of one answer.
#[derive(Debug)]
pub(crate) struct Choice {
    index: usize,
    detokenizer: Detokenizer,
    stops: StopStrings,
    rules: Rules,
    generated: u32,
    /// What the answer begins with, until it is given out.
    echo: Option<Echo>,
}

/// When an answer ends, and what of it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    max_new: u32,
    min_tokens: u32,
    stop_tokens: Vec<u32>,
    /// Stop tokens that the request named itself.
    named: Vec<u32>,
    include_stop: bool,
    wants_logprobs: bool,
    /// Only the prompt is wanted; the token that had to be generated is not.
    hide_output: bool,
}

impl Rules {
    pub(crate) fn new(options: &Options, stop_tokens: Vec<u32>, max_new: u32) -> Self {
        Self {
            max_new,
            min_tokens: options.min_tokens,
            stop_tokens,
            named: options.stop_token_ids.clone(),
            include_stop: options.include_stop,
            wants_logprobs: options.sampling.logprobs.is_some(),
            hide_output: false,
        }
    }

    pub(crate) fn hiding_output(mut self) -> Self {
        self.hide_output = true;
        self
    }
}

/// The prompt, as the beginning of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    text: String,
    places: Vec<Place>,
}

impl Echo {
    /// `first` is the prompt's first token, which follows nothing.
    pub(crate) fn new(text: String, first: Option<u32>) -> Self {
        let first = first.map(|token| Place {
            token,
            logprobs: None,
        });
        let places = first.into_iter().collect();
        Self { text, places }
    }
}

impl Choice {
    pub(crate) fn new(
        index: usize,
        tokenizer: &Arc<Tokenizer>,
        options: &Options,
        rules: Rules,
        echo: Option<Echo>,
    ) -> Result<Self, ApiError> {
        let skip = options.skip_special_tokens;
        let stops = StopStrings::new(options.stop.clone(), options.include_stop);
        let stops = stops.map_err(|error| ApiError::invalid_param("stop", error.to_string()))?;
        Ok(Self {
            index,
            detokenizer: Detokenizer::after_prompt(Arc::clone(tokenizer), skip),
            stops,
            rules,
            generated: 0,
            echo,
        })
    }

    /// Tokens generated and shown so far, up to the one that ended the answer.
    pub(crate) fn completion_tokens(&self) -> u32 {
        if self.rules.hide_output {
            0
        } else {
            self.generated
        }
    }

    /// What an event adds to the answer, if anything.
    pub(crate) fn on(&mut self, event: Event) -> Result<Option<Piece>, GenerationError> {
        match event {
            Event::Admitted { .. } => Ok(None),
            Event::PromptLogprobs(more) => {
                self.on_prompt_logprobs(more);
                Ok(None)
            }
            Event::Token(sampled) => Ok(Some(self.on_token(sampled))),
            // The last token says so itself; this is for a replica that ends sooner.
            Event::Finished(reason) => Ok(Some(self.on_finished(reason))),
            Event::Failed(error) => Err(error),
        }
    }

    fn on_prompt_logprobs(&mut self, more: Vec<Logprobs>) {
        if let Some(echo) = &mut self.echo {
            let places = more.into_iter().map(|logprobs| Place {
                token: logprobs.token,
                logprobs: Some(logprobs),
            });
            echo.places.extend(places);
        }
    }

    fn on_token(&mut self, sampled: Sampled) -> Piece {
        self.generated += 1;
        let mut piece = self.begin();
        if self.rules.hide_output {
            piece.finish = Some(Finish::Length);
            return piece;
        }
        let token = sampled.token;
        piece.tokens.push(token);
        if self.rules.wants_logprobs {
            let logprobs = sampled.logprobs;
            piece.places.push(Place { token, logprobs });
        }
        piece.finish = self.add_text(token, &mut piece.text);
        piece
    }

    /// Adds what the token makes visible, and says whether it is the last.
    fn add_text(&mut self, token: u32, text: &mut String) -> Option<Finish> {
        let is_stop = self.rules.stop_tokens.contains(&token);
        let end = if is_stop {
            let named = self.rules.named.contains(&token);
            Some(Finish::Stop(named.then_some(StopReason::Token(token))))
        } else {
            (self.generated >= self.rules.max_new).then_some(Finish::Length)
        };
        let mut more = String::new();
        if !is_stop || self.rules.include_stop {
            more += &self.detokenizer.push(token);
        }
        if end.is_some() {
            more += &self.detokenizer.flush();
        }
        if self.generated <= self.rules.min_tokens {
            // What is written before `min_tokens` stops nothing (vLLM pull request 22014).
            *text += &self.stops.pass(&more);
            return end;
        }
        let found = self.stops.push(&more);
        *text += &found.text;
        if let Some(stop) = found.stopped {
            return Some(Finish::Stop(Some(StopReason::Text(stop.string))));
        }
        if end.is_some() {
            *text += &self.stops.flush();
        }
        end
    }

    fn on_finished(&mut self, reason: FinishReason) -> Piece {
        let mut piece = self.begin();
        let more = self.detokenizer.flush();
        piece.text += &self.stops.push(&more).text;
        piece.text += &self.stops.flush();
        piece.finish = Some(match reason {
            FinishReason::Stop => Finish::Stop(None),
            FinishReason::Length => Finish::Length,
        });
        piece
    }

    /// A piece with what the answer begins with, if that was not given out yet.
    fn begin(&mut self) -> Piece {
        let index = self.index;
        let Some(echo) = self.echo.take() else {
            return Piece {
                index,
                ..Piece::default()
            };
        };
        let wants_logprobs = self.rules.wants_logprobs;
        Piece {
            index,
            text: echo.text,
            places: if wants_logprobs {
                echo.places
            } else {
                Vec::new()
            },
            ..Piece::default()
        }
    }
}
