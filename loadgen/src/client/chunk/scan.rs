//! The quick reading of an event: one walk, nothing copied, nothing allocated.

use memchr::memchr2;

use super::{Chunk, OUTPUTS};
use crate::exchange::Usage;

/// What [`read`](super::read) would say, or `None` where this is not sure: escapes in names,
/// numbers that are not plain, structure that does not hold.
///
/// Values that are skipped are not checked further than to find their end, and
/// of names that are there twice, which RFC 8259 advises against, both count.
pub(in super::super) fn scan(json: &[u8]) -> Option<Chunk> {
    let mut cursor = Cursor { json, at: 0 };
    let mut chunk = Chunk::default();
    cursor.object(|cursor, name| match name {
        b"choices" => cursor.choices(&mut chunk),
        b"usage" => {
            chunk.usage = cursor.usage()?;
            Some(())
        }
        b"error" => {
            chunk.is_error |= !cursor.is_null()?;
            Some(())
        }
        b"object" => {
            let value = cursor.value()?;
            chunk.is_error |= value == b"\"error\"";
            Some(())
        }
        _ => cursor.skip(),
    })?;
    cursor.space();
    (cursor.at == json.len()).then_some(chunk)
}

/// A place in the text.
struct Cursor<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.json.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.json.get(self.at).copied()
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Walks an object: `field` is called at each value, with its name.
    #[inline]
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.name()?;
            self.expect(b':')?;
            field(self, name)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Names are short, so a loop is quicker than a search.
    #[inline]
    fn name(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.json.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.json[start..self.at - 1]);
                }
                b'\\' => return None,
                _ => self.at += 1,
            }
        }
    }

    fn choices(&mut self, chunk: &mut Chunk) -> Option<()> {
        if self.peek()? != b'[' {
            return self.skip();
        }
        self.at += 1;
        chunk.has_choices = true;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.choice(chunk)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn choice(&mut self, chunk: &mut Chunk) -> Option<()> {
        self.object(|cursor, name| {
            match name {
                b"text" => chunk.has_output |= cursor.is_filled()?,
                b"delta" => cursor.delta(chunk)?,
                b"finish_reason" => chunk.is_finished |= !cursor.is_null()?,
                _ => cursor.skip()?,
            }
            Some(())
        })
    }

    fn delta(&mut self, chunk: &mut Chunk) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        self.object(|cursor, name| {
            if OUTPUTS.iter().any(|output| output.as_bytes() == name) {
                chunk.has_output |= cursor.is_filled()?;
                return Some(());
            }
            cursor.skip()
        })
    }

    /// Whether this is a string or an array with something in it.
    fn is_filled(&mut self) -> Option<bool> {
        let empty_end = match self.peek()? {
            b'"' => b'"',
            b'[' => b']',
            _ => return self.skip().map(|()| false),
        };
        let value = self.value()?;
        let within = &value[1..value.len() - 1];
        Some(match empty_end {
            b'"' => !within.is_empty(),
            _ => !within.trim_ascii().is_empty(),
        })
    }

    fn is_null(&mut self) -> Option<bool> {
        Some(self.value()? == b"null")
    }

    fn usage(&mut self) -> Option<Option<Usage>> {
        if self.peek()? != b'{' {
            return self.skip().map(|()| None);
        }
        let (mut prompt, mut completion, mut cached) = (None, None, None);
        self.object(|cursor, name| {
            match name {
                b"prompt_tokens" => prompt = cursor.number()?,
                b"completion_tokens" => completion = cursor.number()?,
                b"prompt_tokens_details" => cached = cursor.cached_tokens()?,
                _ => cursor.skip()?,
            }
            Some(())
        })?;
        Some(prompt.zip(completion).map(|(prompt, completion)| Usage {
            prompt_tokens: prompt,
            completion_tokens: completion,
            cached_tokens: cached,
        }))
    }

    fn cached_tokens(&mut self) -> Option<Option<u32>> {
        if self.peek()? != b'{' {
            return self.skip().map(|()| None);
        }
        let mut cached = None;
        self.object(|cursor, name| {
            match name {
                b"cached_tokens" => cached = cursor.number()?,
                _ => cursor.skip()?,
            }
            Some(())
        })?;
        Some(cached)
    }

    /// A count of at most nine digits, or `null`. Anything else is for the parser.
    fn number(&mut self) -> Option<Option<u32>> {
        let value = self.value()?;
        if value == b"null" {
            return Some(None);
        }
        let is_plain = value.len() <= 9 && value.iter().all(u8::is_ascii_digit);
        let has_leading_zero = value.len() > 1 && value[0] == b'0';
        if !is_plain || has_leading_zero {
            return None;
        }
        let number = value
            .iter()
            .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        Some(Some(number))
    }

    /// The text of the value here.
    #[inline]
    fn value(&mut self) -> Option<&'a [u8]> {
        self.space();
        let start = self.at;
        self.skip()?;
        Some(&self.json[start..self.at])
    }

    /// Goes behind the value here.
    #[inline]
    fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => self.skip_nested(),
            b't' => self.skip_literal(b"true"),
            b'f' => self.skip_literal(b"false"),
            b'n' => self.skip_literal(b"null"),
            b'-' | b'0'..=b'9' => {
                while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') =
                    self.json.get(self.at)
                {
                    self.at += 1;
                }
                Some(())
            }
            _ => None,
        }
    }

    #[inline]
    fn skip_literal(&mut self, literal: &[u8]) -> Option<()> {
        self.json[self.at..]
            .starts_with(literal)
            .then(|| self.at += literal.len())
    }

    #[inline]
    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += memchr2(b'"', b'\\', self.json.get(self.at..)?)?;
            if self.json[self.at] == b'"' {
                self.at += 1;
                return Some(());
            }
            // The escaped byte is part of the string whatever it is.
            self.at += 2;
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at)? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}
