//! In what context an event happened, how it is known, and how its place in the stream is.

/// Context, provenance, order and a few yes-or-no facts, in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(pub u32);

/// What was running.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Context {
    /// A task.
    #[default]
    Task,
    /// A soft interrupt.
    SoftIrq,
    /// A hard interrupt.
    Irq,
    /// A non-maskable interrupt.
    Nmi,
    /// A guest of a hypervisor.
    Guest,
}

/// How an event is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Provenance {
    /// The source saw it.
    #[default]
    Recorded,
    /// Follows from what the source saw.
    Inferred,
    /// The kernel model says that it happens there; nobody saw it.
    Modelled,
}

/// How far an event's place in the stream can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Order {
    /// The stream's order is the order in which things happened.
    #[default]
    Total,
    /// Only against the events of the same CPU.
    PerCpu,
    /// Not at all.
    Unknown,
}

impl Flags {
    /// Interrupts are off.
    pub const IRQS_OFF: Flags = Flags(1 << 8);
    /// The physical address in the event means nothing: the source does not know it.
    pub const PHYS_UNKNOWN: Flags = Flags(1 << 9);
    /// A store that changed no byte: it makes no version.
    pub const EQUAL_BYTES: Flags = Flags(1 << 10);
    /// A non-temporal or write-combining store.
    pub const NONTEMPORAL: Flags = Flags(1 << 11);
    /// The address in the event is physical though the field is virtual.
    pub const BY_PHYS: Flags = Flags(1 << 12);
    /// The kernel fact behind the event rests on memory, not on a source that was read.
    pub const FROM_MEMORY: Flags = Flags(1 << 13);
    /// Before the secondary CPUs were started.
    pub const BOOT: Flags = Flags(1 << 14);
    /// The name of a region is an order number of this recording: in another one it is somebody
    /// else's.
    pub const NUMBERED: Flags = Flags(1 << 15);
    /// A region is a stretch in which others get their places: where something lies in it says
    /// nothing in another run.
    pub const ZONE: Flags = Flags(1 << 16);
    /// A lock was taken or released by one of several who may hold it together: such holders learn
    /// nothing from each other, and all that the last one learnt who held it alone.
    pub const SHARED: Flags = Flags(1 << 17);
    /// An entry of the tables was made by the exception of an access that found none, and the
    /// access goes on: what is filled so as it is used misses nothing where it has no entry.
    pub const ON_DEMAND: Flags = Flags(1 << 18);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// With this context.
    #[must_use]
    pub const fn in_context(self, context: Context) -> Flags {
        Flags((self.0 & !0x7) | context as u32)
    }

    /// What was running.
    #[must_use]
    pub const fn context(self) -> Context {
        match self.0 & 0x7 {
            1 => Context::SoftIrq,
            2 => Context::Irq,
            3 => Context::Nmi,
            4 => Context::Guest,
            _ => Context::Task,
        }
    }

    /// With this provenance.
    #[must_use]
    pub const fn known_by(self, provenance: Provenance) -> Flags {
        Flags((self.0 & !0x18) | ((provenance as u32) << 3))
    }

    /// How it is known.
    #[must_use]
    pub const fn provenance(self) -> Provenance {
        match (self.0 >> 3) & 0x3 {
            1 => Provenance::Inferred,
            2 => Provenance::Modelled,
            _ => Provenance::Recorded,
        }
    }

    /// With this order.
    #[must_use]
    pub const fn ordered(self, order: Order) -> Flags {
        Flags((self.0 & !0x60) | ((order as u32) << 5))
    }

    /// How far its place can be trusted.
    #[must_use]
    pub const fn order(self) -> Order {
        match (self.0 >> 5) & 0x3 {
            1 => Order::PerCpu,
            2 => Order::Unknown,
            _ => Order::Total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_disturb_each_other() {
        let f = Flags::default()
            .with(Flags::IRQS_OFF)
            .in_context(Context::Nmi)
            .known_by(Provenance::Modelled)
            .ordered(Order::Unknown)
            .in_context(Context::Irq);
        assert_eq!(f.context(), Context::Irq);
        assert_eq!(f.provenance(), Provenance::Modelled);
        assert_eq!(f.order(), Order::Unknown);
        assert!(f.has(Flags::IRQS_OFF) && !f.has(Flags::EQUAL_BYTES));
    }
}
