//! What a cubin says of its kernels: the registers and the stack that each takes, and the bytes of its arguments.
//!
//! A launch hands the driver a pointer to the arguments, and the driver
//! copies as many bytes as the kernel's metadata says. So what a launcher lays out and what the compiler laid out
//! are compared when a unit is compiled, and not when it is too late.
//!
//! A cubin is a 64-bit ELF file (System V ABI, chapter 4). Its sections `.nv.info` and
//! `.nv.info.<kernel>` are lists of attributes: a byte that says how the value is stored, a byte that says what
//! it is, and the value, padded to 4 bytes. The numbers of attributes are not documented; `cuobjdump -elf` prints them with names.

/// What is known of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its name in the source.
    pub name: String,
    /// Bytes of its arguments.
    pub argument_bytes: usize,
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a thread (bytes): arrays that are not in registers, and registers that are spilled.
    pub stack_bytes: u32,
}

/// Bytes that are not a cubin, or not one of those that this was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cubin that is understood: {0}")]
pub struct NotACubin(&'static str);

/// The attributes that are read; their names are those that `cuobjdump -elf` gives them.
mod attribute {
    /// `EIATTR_FRAME_SIZE`: a symbol, and the bytes of its stack.
    pub(super) const FRAME_SIZE: u8 = 0x11;
    /// `EIATTR_CBANK_PARAM_SIZE`: bytes of arguments.
    pub(super) const ARGUMENT_BYTES: u8 = 0x19;
    /// `EIATTR_REGCOUNT`: a symbol, and its registers.
    pub(super) const REGISTERS: u8 = 0x2f;
}

/// How an attribute's value is stored, in the byte before it.
mod storage {
    /// In the two bytes after the attribute.
    pub(super) const HALF: u8 = 3;
    /// In as many bytes as the two after the attribute say.
    pub(super) const SIZED: u8 = 4;
}

/// The kernels of a cubin, in no particular order.
///
/// # Errors
/// If it is not one.
pub fn kernels(cubin: &[u8]) -> Result<Vec<Metadata>, NotACubin> {
    let elf = Elf::open(cubin)?;
    let of_all = elf.section(".nv.info").unwrap_or_default();
    let mut kernels = Vec::new();
    for section in &elf.sections {
        let Some(name) = section.name.strip_prefix(".nv.info.") else {
            continue;
        };
        let symbol = elf
            .symbol(name)
            .ok_or(NotACubin("a kernel has no symbol"))?;
        let of_symbol = |wanted| {
            let mut values = attributes(of_all).filter(|(attribute, _)| *attribute == wanted);
            values.find_map(|(_, value)| (word(value, 0)? == symbol).then(|| word(value, 4))?)
        };
        let arguments = attributes(section.bytes)
            .find(|(attribute, _)| *attribute == attribute::ARGUMENT_BYTES)
            .and_then(|(_, value)| half(value, 0));
        kernels.push(Metadata {
            name: name.to_owned(),
            // A kernel without arguments has no such attribute.
            argument_bytes: arguments.unwrap_or(0).into(),
            registers: of_symbol(attribute::REGISTERS)
                .ok_or(NotACubin("a kernel does not say its registers"))?,
            stack_bytes: of_symbol(attribute::FRAME_SIZE)
                .ok_or(NotACubin("a kernel does not say its stack"))?,
        });
    }
    Ok(kernels)
}

/// The attributes of a section and their values, until it ends or is not understood.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[stored, attribute, low, high], rest) = bytes.split_first_chunk::<4>()?;
        let value;
        (value, bytes) = match stored {
            storage::SIZED => {
                rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?
            }
            storage::HALF => (&bytes[2..4], rest),
            _ => (&bytes[2..2], rest),
        };
        Some((attribute, value))
    })
}

/// A file in the format of ELF, as far as it is needed.
struct Elf<'a> {
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    name: &'a str,
    /// Of the section that its own words are in.
    link: usize,
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    fn open(file: &'a [u8]) -> Result<Self, NotACubin> {
        // Its identification: ELF, of 64 bits, little-endian.
        if !file.starts_with(b"\x7fELF\x02\x01") {
            return Err(NotACubin("it does not begin as an ELF file of 64 bits"));
        }
        let headers = || {
            let offset = long(file, 0x28)?;
            let (size, count) = (half(file, 0x3a)?, half(file, 0x3c)?);
            let names = usize::from(half(file, 0x3e)?);
            let header = |index: u16| {
                let at = offset.checked_add(usize::from(index) * usize::from(size))?;
                file.get(at..)?.get(..0x40)
            };
            let headers: Option<Vec<&[u8]>> = (0..count).map(header).collect();
            let headers = headers?;
            let names = contents(file, headers.get(names)?)?;
            let section = |header: &&'a [u8]| {
                Some(Section {
                    name: text(names, word(header, 0)? as usize)?,
                    link: word(header, 0x28)? as usize,
                    bytes: contents(file, header)?,
                })
            };
            headers.iter().map(section).collect::<Option<Vec<_>>>()
        };
        let sections = headers().ok_or(NotACubin("its sections are cut off"))?;
        Ok(Self { sections })
    }

    fn section(&self, name: &str) -> Option<&'a [u8]> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        Some(section.bytes)
    }

    /// Which of the symbols has this name.
    fn symbol(&self, name: &str) -> Option<u32> {
        const SYMBOL_BYTES: usize = 24;
        let symbols = self
            .sections
            .iter()
            .find(|section| section.name == ".symtab")?;
        let names = self.sections.get(symbols.link)?.bytes;
        let mut names = symbols.bytes.chunks_exact(SYMBOL_BYTES).map(|symbol| {
            let at = word(symbol, 0)?;
            text(names, at as usize)
        });
        u32::try_from(names.position(|other| other == Some(name))?).ok()
    }
}

/// The bytes of a section; none of one that only takes room when it is loaded (`SHT_NOBITS`).
fn contents<'a>(file: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    const NO_BITS: u32 = 8;
    if word(header, 4)? == NO_BITS {
        return Some(&[]);
    }
    file.get(long(header, 0x18)?..)?.get(..long(header, 0x20)?)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

/// Text that ends in a zero.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_one_after_the_other() {
        let bytes = [
            0x04, 0x2f, 8, 0, 15, 0, 0, 0, 40, 0, 0, 0, // of 8 bytes: a symbol, and registers
            0x03, 0x19, 0x58, 0, // in two bytes
            0x01, 0x50, 0, 0, // without a value
            0x04, 0x11, 8, 0, 15, 0, 0, 0, // cut off
        ];
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(
            read,
            [
                (0x2f, &[15, 0, 0, 0, 40, 0, 0, 0][..]),
                (0x19, &[0x58, 0][..]),
                (0x50, &[][..])
            ]
        );
    }

    #[test]
    fn what_is_no_cubin_or_is_cut_off_is_an_error() {
        assert!(kernels(b"").is_err());
        assert!(kernels(b"text").is_err());
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        for bytes in [16, 64, 100] {
            file.resize(bytes, 0xff);
            assert!(kernels(&file).is_err(), "{bytes} bytes");
        }
    }
}
