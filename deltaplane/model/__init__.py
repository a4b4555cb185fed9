"""Pure values that every part of Deltaplane shares.

Values validate themselves when they are built, never change, and know nothing about wires, stores
or clocks; conversions live next to each wire, in modules called `wire`.
"""
