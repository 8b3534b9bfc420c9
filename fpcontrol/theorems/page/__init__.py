"""The page of `fpcontrol verify --report`: formulas, pictures, tables."""
